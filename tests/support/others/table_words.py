"""Tables' words for labels and splits."""
# ruff: noqa: RUF001 - some words are in letters that look alike

from __future__ import annotations

from typing import Any

from support.others.table import THREE, Kept, Table, table


def labels() -> list[Table]:
    """Spellings of labels."""

    def said(name: str, one: str, two: str, expected: Kept | str = "", **more: Any) -> Table:
        text = f"file,patient_id,label\na.png,1,{one}\nb.png,2,{two}\nc.png,3,{one}\n"
        return table(f"labels {name}", text, expected, **more)

    pairs = [
        ("capitals", "NORMAL", "Opacity", None),
        ("blanks", " normal ", "opacity  ", None),
        ("quotes", "'normal'", "'opacity'", None),
        ("numbers", "0", "1", {"0": "normal", "1": "opacity"}),
        ("floats", "0.0", "1.0", {"0": "normal", "1": "opacity"}),
        ("minus", "-1", "1.0", {"-1": "normal", "1": "opacity"}),
        ("float minus", "-1.0", "1", {"-1": "normal", "1": "opacity"}),
        ("float map", "0", "1", {"0.0": "normal", "1.0": "opacity"}),
        ("decimal comma", '"0,0"', '"1,0"', {"0": "normal", "1": "opacity"}),
        ("words", "neg.", "POSITIVE", {"neg.": "normal", "positive": "opacity"}),
        ("yes", "No", "YES", {"no": "normal", "yes": "opacity"}),
        ("true", "FALSE", "True", {"false": "normal", "true": "opacity"}),
        ("excel", "FALSCH", "WAHR", {"falsch": "normal", "Wahr": "opacity"}),
        ("plus", "-", "+", {"-": "normal", "+": "opacity"}),
        ("list", "['No Finding']", "['Pneumonia']", {"No Finding": "normal", "Pneumonia": "opacity"}),
        (
            "lists",
            "['No Finding']",
            "\"['Pneumonia', 'Effusion']\"",
            {"No Finding": "normal", "Pneumonia": "opacity", "Effusion": "opacity"},
        ),
        (
            "double lists",
            '"[""No Finding""]"',
            '"[""Pneumonia"", ""Effusion""]"',
            {"No Finding": "normal", "Pneumonia": "opacity"},
        ),
        ("bars", "No Finding", "Pneumonia|Effusion", {"No Finding": "normal", "Pneumonia": "opacity"}),
        ("semicolons", "No Finding", "Effusion; Pneumonia", {"No Finding": "normal", "Pneumonia": "opacity"}),
        ("slashes", "No Finding", "Effusion / Pneumonia", {"No Finding": "normal", "Effusion / Pneumonia": "opacity"}),
        ("accents composed", "sain", "E\u0301panchement", {"sain": "normal", "\xc9panchement": "opacity"}),
        ("accents apart", "sain", "\xc9panchement", {"sain": "normal", "E\u0301panchement": "opacity"}),
        ("zero width", "normal\u200b", "\u200eopacity", None),
        ("nbsp", "no\xa0finding", "opacity", {"no finding": "normal"}),
        ("two blanks", "No  Finding", "opacity", {"No Finding": "normal"}),
        ("underscore", "no_finding", "opacity", {"no_finding": "normal"}),
        ("sharp s", "GROSS", "gro\xdf", {"gro\xdf": "normal", "GROSSE": "opacity"}),
        ("excel text", '"=""0"""', '="1"', {"0": "normal", "1": "opacity"}),
        ("chinese", "正常", "肺炎", {"正常": "normal", "肺炎": "opacity"}),
        ("full width", "０", "１", {"0": "normal", "1": "opacity"}),
    ]
    found = []
    for name, one, two, mapped in pairs:
        expected: Kept | str = ""
        if name == "sharp s":
            expected = {file: (who, "normal", None) for file, (who, _, _) in THREE.items()}
        found.append(said(name, one, two, expected, **({"map": mapped} if mapped else {})))
    found += [
        said("both", "normal|opacity", "opacity", "mean more than one", answers={"most_dropped": 1.0}),
        said("none of it", "Atelectasis", "Effusion", "not one of the plan's"),
        said(
            "dropped", "u", "opacity", {"b.png": ("2", "opacity", None)}, map={"u": None}, answers={"most_dropped": 1.0}
        ),
        said("empty", "", "opacity", {"b.png": ("2", "opacity", None)}, answers={"most_dropped": 1.0}),
        said("empty asked", "", "opacity", "most_dropped"),
        said("nan", "nan", "opacity", "not one of the plan's|no label"),
        said("map twice", "yes", "no", "twice|two meanings", map={"yes": "opacity", "YES": "normal", "no": "normal"}),
        said("map numbers twice", "1", "0", "twice|two meanings", map={"1": "opacity", "1.0": "normal", "0": "normal"}),
        said("map to nothing", "x", "y", "the plan's labels are", map={"x": "sick"}),
        said("uncertain", "normal", "-1.0", {"a.png": THREE["a.png"], "c.png": THREE["c.png"]}, map={"-1": None}),
        said("finding and none", "No Finding|Effusion", "opacity", "beside others", map={"No Finding": "normal"}),
    ]
    return found


def splits() -> list[Table]:
    """Words for splits."""

    def split(name: str, words: tuple[str, str, str], expected: tuple[str | None, ...] | str) -> Table:
        text = "file,patient_id,label,split\n" + "".join(
            f"{file},{who},{label},{word}\n" for (file, (who, label, _)), word in zip(THREE.items(), words, strict=True)
        )
        if isinstance(expected, str):
            return table(f"splits {name}", text, expected)
        kept = {file: (who, label, said) for (file, (who, label, _)), said in zip(THREE.items(), expected, strict=True)}
        return table(f"splits {name}", text, kept)

    train, out = "train", "holdout"
    return [
        split(name, words, (train, train, out))
        for name, words in (
            ("capitals", ("TRAIN", "Val", "TEST")),
            ("blanks", (" train ", "val ", "\u200btest")),
            ("mimic", ("train", "validate", "test")),
            ("chexpert", ("train", "valid", "test")),
            ("nih", ("train_val", "train_val", "test")),
            ("trainval", ("trainval", "train/val", "test")),
            ("words", ("Training", "Validation", "Testing")),
            ("sets", ("training set", "validation set", "test set")),
            ("hyphen", ("train", "train-val", "hold-out")),
            ("hold out", ("train", "dev", "hold out")),
            ("held", ("train", "development", "held_out")),
            ("german", ("Training", "Validierung", "Test")),
            ("tune", ("train", "tune", "test")),
            ("quotes", ('"train"', '"train"', '"test"')),
            ("files", ("train.txt", "val.txt", "test.txt")),
        )
    ] + [
        split("none", ("", "", ""), (None, None, None)),
        split("programs' nothing", ("nan", "None", "NULL"), (None, None, None)),
        split("programs' nothing beside others", ("train", "nan", "test"), "its split is none of"),
        split("some", ("train", "", "test"), "its split is none of"),
        split("numbers", ("0", "1", "2"), "its split is none of"),
        split("evaluation", ("train", "train", "eval"), "its split is none of"),
        split("folds", ("fold1", "fold2", "fold3"), "its split is none of"),
    ]


def all_tables() -> list[Table]:
    """All of this module."""
    return [*labels(), *splits()]

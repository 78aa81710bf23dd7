"""Tables as people, spreadsheets and other data sets write them; each over three small pictures a.png, b.png, c.png."""
# ruff: noqa: E501, RUF001 - a row a case, some of them in letters that look alike
# fmt: off

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# rows kept, by file: (patient, label, split); or words that the refusal, the question or a row's reason must hold
Kept = dict[str, tuple[str, str, str | None]]


@dataclass(frozen=True)
class Table:
    """One table: its bytes, what the source says beside it, and what becomes of its rows."""

    name: str
    data: bytes
    expected: Kept | str
    source: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ("a.png", "b.png", "c.png")


PLAIN = "file,patient_id,label\na.png,1,normal\nb.png,2,opacity\nc.png,3,normal\n"
THREE: Kept = {"a.png": ("1", "normal", None), "b.png": ("2", "opacity", None), "c.png": ("3", "normal", None)}


def table(name: str, text: str, expected: Kept | str = "", encoding: str = "utf-8", **more: Any) -> Table:
    files = more.pop("files", ("a.png", "b.png", "c.png"))
    return Table(name, text.encode(encoding), THREE if expected == "" else expected, more, files)


def written() -> list[Table]:
    """Separators, encodings, lines."""
    found = [table(f"separator {sign!r}", PLAIN.replace(",", sign)) for sign in ("\t", "|", ";", " ;", "; ", " , ")]
    found += [table(f"encoding {name}", PLAIN, encoding=name) for name in ("utf-8-sig", "utf-16")]
    found += [
        Table("encoding utf-16 le", b"\xff\xfe" + PLAIN.encode("utf-16-le"), THREE),
        Table("encoding utf-16 be", b"\xfe\xff" + PLAIN.replace(",", "\t").encode("utf-16-be"), THREE),
        Table("encoding utf-16 without mark", PLAIN.encode("utf-16-le"), "UTF-16"),
        Table("encoding utf-32", PLAIN.encode("utf-32"), "UTF-32|UTF-16"),
    ]
    for code, word in (
        ("cp1252", "Müller"),
        ("cp1251", "Иванов"),
        ("shift_jis", "山田"),
        ("gb18030", "张伟"),
        ("cp1250", "Dvořák"),
        ("latin-1", "Núñez"),
        ("mac-roman", "Müller"),
        ("euc-kr", "김철수"),
        ("iso8859-8", "כהן"),
        ("cp1256", "محمد"),
    ):
        found.append(table(f"encoding {code}", PLAIN.replace(",1,", f",{word},"), "not UTF-8 at line 2", encoding=code))
    for word in ("Иванов", "山田太郎", "김철수", "כהן", "محمد", "Σωκράτης", "สมชาย"):
        kept = {**THREE, "a.png": (word, "normal", None)}
        found.append(table(f"id in other letters {word}", PLAIN.replace(",1,", f",{word},"), kept))
    found += [
        table("lines of windows", PLAIN.replace("\n", "\r\n")),
        table("lines of old macs", PLAIN.replace("\n", "\r")),
        table("no last line end", PLAIN.strip()),
        table("empty rows at the end", PLAIN + ",,\n,,\n\n  \n"),
        table("empty rows between", PLAIN.replace("\n", "\n\n")),
        table("empty semicolons", PLAIN.replace(",", ";") + ";;\n;;\n"),
        table("blank first", "\n\n" + PLAIN.replace(",", ";")),
        table("commas first", ",,\n" + PLAIN),
        table("sep", "sep=;\n" + PLAIN.replace(",", ";")),
        table("sep with mark", "\ufeffsep=\t\r\n" + PLAIN.replace(",", "\t").replace("\n", "\r\n")),
        table("sep in quotes", '"sep=;"\n' + PLAIN.replace(",", ";")),
        table(
            "all in quotes", "\n".join(",".join(f'"{value}"' for value in line.split(",")) for line in PLAIN.split())
        ),
        table("mark twice", "\ufeff\ufeff" + PLAIN),
        table("columns of nothing", PLAIN.replace("\n", ",,\n")),
        table(
            "quoted line end",
            'file,patient_id,label,note\na.png,1,normal,"two\nlines"\nb.png,2,opacity,\nc.png,3,normal,x\n',
            ignored_columns=["note"],
        ),
        table("quoted header line end", PLAIN.replace("label", '"label\n"', 1)),
        table("title line", "Export of 2024\n" + PLAIN, "line 2"),
        table("title with commas", "Export,of,2024\n" + PLAIN, "line 2"),
        table("comment line", "# made by hand\n" + PLAIN, "line 2"),
        table("no header", PLAIN.split("\n", 1)[1], "no column 'file'"),
        table("only header", "file,patient_id,label\n", "no rows"),
        table("nothing", "", "no rows"),
        table("blanks only", "\n \n", "no rows"),
        Table("a workbook", b"PK\x03\x04" + b"\0" * 30, "workbook"),
        Table("an old workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 30, "workbook"),
        table("a page", "<html><body><table>", "HTML|no column"),
        table("json", '[{"file": "a.png"}]', "no column"),
        table("unended quote", PLAIN + 'a.png,4,"normal\n', "line"),
        table("text after quote", PLAIN.replace("1,normal", '1,"nor"mal'), "line 2"),
        table("more values", PLAIN.replace("1,normal", "1,normal,x"), "line 2 has 4 values"),
        table("decimal commas", PLAIN.replace(",1,", ",1,5,"), "line 2 has 4 values"),
        table(
            "decimal commas and semicolons",
            PLAIN.replace(",", ";").replace(";1;", ";1,5;"),
            {**THREE, "a.png": ("1,5", "normal", None)},
        ),
    ]
    return found


def headers() -> list[Table]:
    """Names of columns."""
    found = [
        table(f"header {said!r}", PLAIN.replace("file,patient_id,label", said))
        for said in (
            "FILE,PATIENT_ID,LABEL",
            " file , patient_id , label ",
            "File,Patient_Id,Label",
            "file\u200b,patient_id,\u200elabel",
            "file\xa0,patient_id,label",
            '"file","patient_id","label"',
            "\ufefffile,patient_id,label",
        )
    ]
    found += [
        table(f"header near {said!r}", PLAIN.replace("file,patient_id,label", said), f"is '{near}' meant")
        for said, near in (
            ("file,PatientID,label", "PatientID"),
            ("file,Patient ID,label", "Patient ID"),
            ("File Name,patient_id,label", "File Name"),
            ("file,patient_id,Labels", "Labels"),
            ("filename,patient_id,label", "filename"),
            ("file,patient-id,label", "patient-id"),
            ("file,pateint_id,label", "pateint_id"),
        )
    ]
    named = {"file": "Image Index", "patient_id": "Patient ID", "label": "Finding Labels"}
    nih = (
        "Image Index,Finding Labels,Patient ID\na.png,No Finding,1\nb.png,Effusion|Infiltration,2\nc.png,No Finding,3\n"
    )
    mapped = {"No Finding": "normal", "Effusion": "opacity", "Infiltration": "opacity"}
    found += [
        table("nih", nih, columns=named, map=mapped),
        table("nih other case", nih, columns={key: value.upper() for key, value in named.items()}, map=mapped),
        table("nih near", nih, "Finding Labels", columns={**named, "label": "Finding Label"}, map=mapped),
        table(
            "twice",
            PLAIN.replace("label\n", "label,Label\n", 1).replace("normal\n", "normal,opacity\n"),
            "column 'label' twice",
        ),
        table(
            "twice the file", PLAIN.replace("file,", "file,FILE,", 1).replace("png,", "png,x,"), "column 'file' twice"
        ),
        table("twice ignored", PLAIN.replace("label\n", "label,note,note\n", 1), ignored_columns=["note"]),
        table("misspelt split", PLAIN.replace("label\n", "label,splt\n", 1), "is 'split' meant"),
        table("unknown", PLAIN.replace("label\n", "label,age\n", 1), "column 'age' that nothing reads"),
        table("unknown ignored", PLAIN.replace("label\n", "label,Age\n", 1), ignored_columns=["age"]),
        table("unnamed", PLAIN.replace("label\n", "label,\n", 1).replace("normal\n", "normal,x\n")),
        table(
            "pandas index",
            "\n".join([",file,patient_id,label", "0,a.png,1,normal", "1,b.png,2,opacity", "2,c.png,3,normal"]),
        ),
        table("pandas unnamed", "\n".join(["Unnamed: 0,file,patient_id,label", "0,a.png,1,normal"]), "Unnamed: 0"),
    ]
    return found


def labels() -> list[Table]:
    """Spellings of labels."""

    def said(name: str, one: str, two: str, expected: Kept | str = "", **more: Any) -> Table:
        text = f"file,patient_id,label\na.png,1,{one}\nb.png,2,{two}\nc.png,3,{one}\n"
        return table(f"labels {name}", text, expected, **more)

    pairs = [("capitals", "NORMAL", "Opacity", None), ("blanks", " normal ", "opacity  ", None), ("quotes", "'normal'", "'opacity'", None),
             ("numbers", "0", "1", {"0": "normal", "1": "opacity"}), ("floats", "0.0", "1.0", {"0": "normal", "1": "opacity"}),
             ("minus", "-1", "1.0", {"-1": "normal", "1": "opacity"}), ("float minus", "-1.0", "1", {"-1": "normal", "1": "opacity"}),
             ("float map", "0", "1", {"0.0": "normal", "1.0": "opacity"}), ("decimal comma", '"0,0"', '"1,0"', {"0": "normal", "1": "opacity"}),
             ("words", "neg.", "POSITIVE", {"neg.": "normal", "positive": "opacity"}), ("yes", "No", "YES", {"no": "normal", "yes": "opacity"}),
             ("true", "FALSE", "True", {"false": "normal", "true": "opacity"}), ("excel", "FALSCH", "WAHR", {"falsch": "normal", "Wahr": "opacity"}),
             ("plus", "-", "+", {"-": "normal", "+": "opacity"}), ("list", "['No Finding']", "['Pneumonia']", {"No Finding": "normal", "Pneumonia": "opacity"}),
             ("lists", "['No Finding']", "\"['Pneumonia', 'Effusion']\"", {"No Finding": "normal", "Pneumonia": "opacity", "Effusion": "opacity"}),
             ("double lists", '"[""No Finding""]"', '"[""Pneumonia"", ""Effusion""]"', {"No Finding": "normal", "Pneumonia": "opacity"}),
             ("bars", "No Finding", "Pneumonia|Effusion", {"No Finding": "normal", "Pneumonia": "opacity"}),
             ("semicolons", "No Finding", "Effusion; Pneumonia", {"No Finding": "normal", "Pneumonia": "opacity"}),
             ("slashes", "No Finding", "Effusion / Pneumonia", {"No Finding": "normal", "Effusion / Pneumonia": "opacity"}),
             ("accents composed", "sain", "E\u0301panchement", {"sain": "normal", "\xc9panchement": "opacity"}),
             ("accents apart", "sain", "\xc9panchement", {"sain": "normal", "E\u0301panchement": "opacity"}),
             ("zero width", "normal\u200b", "\u200eopacity", None), ("nbsp", "no\xa0finding", "opacity", {"no finding": "normal"}),
             ("two blanks", "No  Finding", "opacity", {"No Finding": "normal"}), ("underscore", "no_finding", "opacity", {"no_finding": "normal"}),
             ("sharp s", "GROSS", "gro\xdf", {"gro\xdf": "normal", "GROSSE": "opacity"}), ("excel text", '"=""0"""', '="1"', {"0": "normal", "1": "opacity"}),
             ("chinese", "正常", "肺炎", {"正常": "normal", "肺炎": "opacity"}), ("full width", "０", "１", {"0": "normal", "1": "opacity"})]
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
        split("some", ("train", "", "test"), "its split is none of"),
        split("numbers", ("0", "1", "2"), "its split is none of"),
        split("evaluation", ("train", "train", "eval"), "its split is none of"),
        split("folds", ("fold1", "fold2", "fold3"), "its split is none of"),
    ]


def files() -> list[Table]:
    """How files are called."""

    def named(
        name: str, *said: str, on_disk: tuple[str, ...] = ("a.png", "b.png", "c.png"), expected: Kept | str = ""
    ) -> Table:
        rows = "".join(f'"{file}",{who},{label}\n' for file, (who, label, _) in zip(said, THREE.values(), strict=True))
        kept = expected or dict(zip(on_disk, THREE.values(), strict=True))
        return table(f"files {name}", "file,patient_id,label\n" + rows, kept, files=on_disk)

    deep = ("sub/a.png", "sub/b.png", "sub/deep/c.png")
    return [
        named("windows", "sub\\a.png", "sub\\b.png", "sub\\deep\\c.png", on_disk=deep),
        named("windows dots", ".\\sub\\a.png", ".\\sub\\b.png", "sub\\.\\deep\\c.png", on_disk=deep),
        named("mixed", "sub\\a.png", "sub/b.png", "sub/deep\\c.png", on_disk=deep),
        named("dots", "./sub/a.png", ".//sub/b.png", "sub//deep/./c.png", on_disk=deep),
        named("blanks", " a.png", "b.png ", "\tc.png"),
        named("zero width", "\u200ba.png", "b.png\u200e", "\ufeffc.png"),
        named("capitals", "A.PNG", "B.png", "c.Png"),
        named("capitals on disk", "a.png", "b.png", "c.png", on_disk=("A.PNG", "B.Png", "C.png")),
        named("composed", "M\xfcller.png", "b.png", "c.png", on_disk=("Mu\u0308ller.png", "b.png", "c.png")),
        named("apart", "Mu\u0308ller.png", "b.png", "c.png", on_disk=("M\xfcller.png", "b.png", "c.png")),
        named("inner blanks", "my film.png", "b.png", "c.png", on_disk=("my film.png", "b.png", "c.png")),
        named("other letters", "снимок.png", "胸部.png", "אב.png", on_disk=("снимок.png", "胸部.png", "אב.png")),
        named("quotes", "'a.png'", "'b.png'", "'c.png'"),
        named("no ending", "a", "b", "c"),
        named(
            "absolute windows",
            "C:\\data\\a.png",
            "C:\\data\\b.png",
            "C:\\data\\c.png",
            expected="leads out of the folder|file not found",
        ),
        named("absolute", "/data/a.png", "/data/b.png", "/data/c.png", expected="leads out of the folder"),
        named("above", "../a.png", "..\\b.png", "x/../../c.png", expected="leads out of the folder"),
        named("a folder", ".", "b.png", "c.png", expected="file not found|leads out"),
        named("address", "https://x.y/a.png", "s3://b.png", "file:///c.png", expected="file not found"),
        named("missing", "a.png", "b.png", "d.png", expected="file not found"),
        named("two that differ in capitals", "A.png", "b.png", "c.png", on_disk=("A.png", "b.png", "c.png")),
        named("once more under another patient", "a.png", "A.png", "c.png", expected="image_of_two_patients"),
    ]


def patients() -> list[Table]:
    """Patient identifiers that are one, none, or spoilt."""

    def ids(name: str, one: str, two: str, expected: Kept | str) -> Table:
        rows = f'a.png,"{one}",normal\nb.png,"{two}",opacity\nc.png,other,normal\n'
        return table(f"ids {name}", "file,patient_id,label\n" + rows, expected)

    found = [
        ids(f"alike {name}", one, two, "alike_ids")
        for name, one, two in (
            ("zeros", "00123", "123"),
            ("point zero", "123.0", "123"),
            ("point zeros", "0123.00", "123"),
            ("comma zero", "123,0", "123"),
            ("case", "ab-1", "AB-1"),
            ("inner blanks", "ab 1", "ab1"),
            ("two blanks", "ab  1", "ab 1"),
            ("tab", "ab\t1", "ab1"),
            ("nbsp", "ab\xa01", "ab 1"),
            ("caret", "DOE^JOHN", "DOEJOHN"),
            ("carets", "DOE^JOHN^^", "DOE^JOHN"),
            ("nfd", "Mu\u0308ller", "M\xfcller"),
            ("zero width", "M\u200b1", "M1"),
            ("direction", "M\u200f1", "M1"),
            ("soft hyphen", "M\xad1", "M1"),
            ("full width", "１２３", "123"),
            ("thousands dots", "1.234.567", "1234567"),
            ("thousands commas", "1,234,567", "1234567"),
            ("thousands apostrophes", "1'234'567", "1234567"),
            ("hyphens", "AB-12", "AB12"),
            ("dashes", "AB\u201312", "AB-12"),
            ("underscore", "AB_12", "AB-12"),
            ("slashes", "AB/12", "AB-12"),
            ("leading apostrophe", "'00123", "00123"),
            ("sharp s", "gro\xdf", "GROSS"),
            ("dotless", "IŞIK", "ışık"),
            ("prefix zeros", "P001", "P1"),
            ("plus", "+123", "123"),
            ("hash", "#123", "123"),
        )
    ]
    found += [
        ids(f"nothing {word!r}", word, "x1", "no patient id")
        for word in (
            "nan",
            "NaN",
            "NULL",
            "None",
            "NA",
            "N/A",
            "#N/A",
            "#NV",
            "#NAME?",
            "#REF!",
            "#VALUE!",
            "#DIV/0!",
            "########",
            "-",
            "",
            " ",
            "\u200b",
            "<NA>",
            "NaT",
            "n.a.",
            "#¡REF!",
            "#N/D",
            "''",
            ".",
        )
    ]
    found += [
        ids(f"anybody {word!r}", word, "x1", "placeholder_ids")
        for word in (
            "ANONYMOUS",
            "Anonymized",
            "anon",
            "UNKNOWN",
            "0000",
            "XXXX",
            "xxxxxx",
            "999999999",
            "ANONYMOUS^PATIENT",
            "Anonymous Patient",
            "No ID",
            "Unbekannt",
            "1.23457E+11",
            "1,23457E+11",
            "1.2E+10",
            "6E+09",
            "test patient",
            "NOT AVAILABLE",
            "N.N.",
            "неизвестно",
            "匿名",
            "01.Feb",
            "2-Jan",
            "Jan-02",
            "00:00:00",
            "1900-01-00",
            "111111",
            "-1",
        )
    ]
    found += [
        ids(
            "unlike",
            "A1",
            "A2",
            {"a.png": ("A1", "normal", None), "b.png": ("A2", "opacity", None), "c.png": ("other", "normal", None)},
        ),
        ids(
            "excel text",
            '=""00123""',
            "124",
            {"a.png": ("00123", "normal", None), "b.png": ("124", "opacity", None), "c.png": ("other", "normal", None)},
        ),
        table(
            "ids excel bare",
            'file,patient_id,label\na.png,="00123",normal\nb.png,124,opacity\nc.png,other,normal\n',
            {"a.png": ("00123", "normal", None), "b.png": ("124", "opacity", None), "c.png": ("other", "normal", None)},
        ),
        ids(
            "excel text alike",
            '=""00123""',
            "00123",
            {
                "a.png": ("00123", "normal", None),
                "b.png": ("00123", "opacity", None),
                "c.png": ("other", "normal", None),
            },
        ),
        ids(
            "one and ten",
            "1",
            "10",
            {"a.png": ("1", "normal", None), "b.png": ("10", "opacity", None), "c.png": ("other", "normal", None)},
        ),
        ids(
            "points",
            "1.2",
            "12",
            {"a.png": ("1.2", "normal", None), "b.png": ("12", "opacity", None), "c.png": ("other", "normal", None)},
        ),
        ids(
            "uids",
            "1.2.840.1",
            "1.2.840.2",
            {
                "a.png": ("1.2.840.1", "normal", None),
                "b.png": ("1.2.840.2", "opacity", None),
                "c.png": ("other", "normal", None),
            },
        ),
        ids(
            "dates as ids",
            "2024-01-02",
            "20240103",
            {
                "a.png": ("2024-01-02", "normal", None),
                "b.png": ("20240103", "opacity", None),
                "c.png": ("other", "normal", None),
            },
        ),
    ]
    twice = "file,patient_id,label\na.png,1,normal\nb.png,2,opacity\nc.png,3,normal\n"
    found += [
        table("twice the same", twice + "a.png,1,normal\n", THREE),
        table("twice two labels", twice + "./a.png,1,opacity\n", "image_of_two_labels"),
        table("twice two patients", twice + "A.png,9,normal\n", "image_of_two_patients"),
        table("twice windows", twice + ".\\a.png,9,normal\n", "image_of_two_patients"),
        table(
            "copy",
            twice + "d.png,9,normal\n",
            "image_of_two_patients",
            files=("a.png", "b.png", "c.png", "d.png=a.png"),
        ),
        table(
            "copy of one",
            twice + "d.png,1,opacity\n",
            "image_of_two_labels",
            files=("a.png", "b.png", "c.png", "d.png=a.png"),
        ),
    ]
    return found


def all_tables() -> list[Table]:
    """All of this module."""
    return [*written(), *headers(), *labels(), *splits(), *files(), *patients()]

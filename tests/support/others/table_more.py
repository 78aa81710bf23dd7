"""More tables of the kinds that failed in the field: other columns, encodings, numbers and habits of programs."""

from __future__ import annotations

from support.others.table import THREE, Kept, Table, table


def _ids(name: str, one: str, two: str, expected: Kept | str) -> Table:
    rows = f'a.png,"{one}",normal\nb.png,"{two}",opacity\nc.png,other,normal\n'
    return table(f"more ids {name}", "file,patient_id,label\n" + rows, expected)


def _apart(name: str, one: str, two: str) -> Table:
    kept: Kept = {"a.png": (one, "normal", None), "b.png": (two, "opacity", None), "c.png": ("other", "normal", None)}
    return _ids(name, one, two, kept)


def patients() -> list[Table]:
    """A number beside the same with letters before it is asked about; letters beside letters are not."""
    pairs = (
        ("P001", "1"), ("Pat 17", "17"), ("PAT-0017", "0017"), ("subject_4", "4"), ("MRN:12345", "12345"),
        ("ID12", "12"), ("sub-01", "1"), ("\u041f12", "12"), ("Patient12", "12.0"), ("CXR000099", "99"),
    )  # fmt: skip
    found = [_ids(f"letters {one} {two}", one, two, "prefixed_ids") for one, two in pairs]
    found += [
        _apart("letters of two sites", "A1", "B1"),
        _apart("letters of other numbers", "P001", "2"),
        _apart("letters behind", "1P", "1"),
        _apart("letters between", "1P1", "11"),
    ]
    merged = table(
        "more ids merged",
        "file,patient_id,label\na.png,P001,normal\nb.png,1,opacity\nc.png,3,normal\n",
        {"a.png": ("P001", "normal", None), "b.png": ("1", "opacity", None), "c.png": ("3", "normal", None)},
        answers={"prefixed_ids": "separate"},
    )
    return [*found, merged]


def forms() -> list[Table]:
    """Tables as programs leave them."""
    plain = "file,patient_id,label\na.png,1,normal\nb.png,2,opacity\nc.png,3,normal\n"
    return [
        table("more utf-16 with tabs", plain.replace(",", "\t"), THREE, "utf-16"),
        table("more windows ends and mark", plain.replace("\n", "\r\n"), THREE, "utf-8-sig"),
        table("more blanks before all", "\n".join(f"  {row}" for row in plain.splitlines()) + "\n", THREE),
        table("more trailing commas", plain.replace("\n", ",\n"), THREE),
        table("more end of dos", plain + "\x1a", THREE),
        table("more header again", plain + "file,patient_id,label\n", THREE),
        table("more total row", plain + "3 rows,,\n", "file not found"),
        table("more form feed", plain.replace("\n", "\n\x0c", 1), THREE),
        table("more quotes of word", plain.replace("a.png", "\u201ca.png\u201d"), THREE),
        table("more labels in quotes of word", plain.replace("normal", "\u2018normal\u2019"), THREE),
        table("more null bytes", plain.replace("1,", "1\0,", 1), "null sign in line 2"),
        table("more split of keras", plain.replace("label\n", "label,split\n").replace("normal\n", "normal,Training\n")
              .replace("opacity\n", "opacity,Testing\n"),
              {name: (*THREE[name][:2], "holdout" if name == "b.png" else "train") for name in THREE}),
        table("more labels with a point", plain.replace("opacity", "opacity."), "not one of the plan's"),
    ]  # fmt: skip


def all_tables() -> list[Table]:
    """All of this module."""
    return [*patients(), *forms()]

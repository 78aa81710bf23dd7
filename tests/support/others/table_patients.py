"""Tables whose patient identifiers are one, none, or spoilt."""
# ruff: noqa: RUF001 - some identifiers are in letters that look alike

from __future__ import annotations

from support.others.table import THREE, Kept, Table, table


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
            ("point behind", "123.", "123"),
            ("semicolon behind", "123;", "123"),
            ("round brackets", "12345", "(12345)"),
            ("square brackets", "12345", "[12345]"),
            ("dash behind", "12345-", "12345"),
            ("backslash behind", "123\\", "123"),
            ("devanagari digits", "१२३", "123"),
            ("arabic digits", "١٢٣", "123"),
            ("letters read twice", "MÃ¼ller", "Müller"),
            ("variant of a digit", "1\ufe0f2", "12"),
            ("comma of a name", "Doe, John", "Doe John"),
            ("comma for a caret", "Doe,John", "DOE^JOHN"),
            ("zeros before a letter", "00A1", "A1"),
            ("word joiner", "1\u20602", "12"),
            ("long s", "\u017f1", "s1"),
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
            "\\N",
            "undefined",
            "(null)",
            "[null]",
            "None.",
            "N\\A",
            "NaN.0",
            "n/k",
            "k.A.",
            "Infinity",
            "#DIV/0",
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
            "9999",
            "-999.0",
            "UNK",
            "unbek.",
            "DEMO",
            "TBA",
            "XXX-XX-XXXX",
            "1.23457E 11",
            "1.23457×10^11",
            "12/31/1899",
            "31.12.1899",
            "1/0/1900",
            "Jan 2",
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
            "letters of an alphabet",
            "N",
            "X",
            {"a.png": ("N", "normal", None), "b.png": ("X", "opacity", None), "c.png": ("other", "normal", None)},
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
    return [*patients()]

"""Tables as people, spreadsheets and other data sets write them: separators, encodings, lines, headers, files."""
# ruff: noqa: E501, RUF001 - a row a case, some of them in letters that look alike

# fmt: off

from __future__ import annotations

from support.others.table import PLAIN, THREE, Kept, Table, table


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
        *(
            table(f"unread separator {sign!r}", PLAIN.replace(",", sign), f"separated by {words}")
            for sign, words in ((" ", "blanks"), ("   ", "blanks"), ("^", r"'\^'"), ("~", "'~'"), (":", "':'"), ("；", "'.'"))
        ),
        table("two separators", PLAIN.replace(",", ";", 2), "line 2 is separated by ','"),
        table("two separators other", PLAIN.replace("a.png,1,normal", "a.png;1;normal"), "line 2 is separated by ';'"),
        table("encoding iso-2022-jp", PLAIN.replace(",1,", ",山田,"), "ISO-2022", encoding="iso2022_jp"),
        table("rule of a database", PLAIN.replace("label\n", "label\n----,----,----\n", 1) + "(3 rows affected)\n", {**THREE}, answers={"most_dropped": 1.0}),
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
            "file,patient_id,l\u200babel",
            "ﬁle,patient＿id,label",
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
        table("other names", PLAIN.replace("file,patient_id,label", "path,subject,class"), "it has 'path', 'subject', 'class'"),
        table("unnamed", PLAIN.replace("label\n", "label,\n", 1).replace("normal\n", "normal,x\n")),
        table(
            "pandas index",
            "\n".join([",file,patient_id,label", "0,a.png,1,normal", "1,b.png,2,opacity", "2,c.png,3,normal"]),
        ),
        table("pandas unnamed", "\n".join(["Unnamed: 0,file,patient_id,label", "0,a.png,1,normal"]), "Unnamed: 0"),
    ]
    return found


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
        named("a part of a uid", "1.2.840.1", "b.png", "c.png", on_disk=("1.2.840.1.5", "b.png", "c.png"), expected="file not found"),
        named("a part of a number", "scan", "b.png", "c.png", on_disk=("scan.2", "b.png", "c.png"), expected="file not found"),
        named("a name with a point", "a.b", "b", "c", on_disk=("a.b.png", "b.png", "c.png")),
        named("missing", "a.png", "b.png", "d.png", expected="file not found"),
        named("two that differ in capitals", "A.png", "b.png", "c.png", on_disk=("A.png", "b.png", "c.png")),
        named("once more under another patient", "a.png", "A.png", "c.png", expected="image_of_two_patients"),
    ]


def all_tables() -> list[Table]:
    """All of this module."""
    return [*written(), *headers(), *files()]

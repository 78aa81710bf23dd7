"""A table's text comes a piece at a time: letters across pieces are whole, and a fault has its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato_common import table_text
from sfumato_common.errors import DataError
from sfumato_common.tables import iterate_table, read_table

ROWS = 500


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_text, "_PIECE", 7)  # every letter of two bytes and more falls across two of them


def text(encoding: str) -> bytes:
    return ("file,name\n" + "".join(f"{number}.png,Müller山{number}\n" for number in range(ROWS))).encode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_letters_across_pieces_are_whole(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(text(encoding))
    rows = read_table(tmp_path / "a.csv", ("file", "name"))
    assert [row["name"] for row in rows] == [f"Müller山{number}" for number in range(ROWS)]


@pytest.mark.parametrize("line", [1, 2, 3, 250, ROWS + 1])
@pytest.mark.parametrize("bad", [b"\xfc", b"\xe5\xb1"])
def test_what_is_not_utf8_has_its_line(tmp_path: Path, line: int, bad: bytes) -> None:
    lines = text("utf-8").split(b"\n")
    lines[line - 1] += bad
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=rf"not UTF-8 at line {line} "):
        read_table(tmp_path / "a.csv", ("file", "name"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (text("utf-8") + b"\xe5\xb1", "not UTF-8 at line 502"),
        (text("utf-16") + b"\0", "UTF-16, and is cut off"),
        (text("utf-8") + "山".encode("iso2022_jp"), "ISO-2022"),
    ],
)
def test_an_end_that_is_cut_off_is_told(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_table(tmp_path / "a.csv", ("file", "name"))


def test_a_table_that_changes_while_it_is_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(text("utf-8") * 40)
    rows = iterate_table(tmp_path / "a.csv", ("file", "name"))
    next(rows)
    with (tmp_path / "a.csv").open("r+b") as stream:
        stream.write(b"file,name\n" + b"\xfc\xfc,x\n" * 200_000)
    with pytest.raises(DataError, match="was changed while it was read"):
        list(rows)

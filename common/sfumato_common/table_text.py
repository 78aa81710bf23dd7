"""The text of a table's file, a piece at a time: UTF-8, or UTF-16 with its mark; what else it is is told by its line.

A code page is not guessed: one letter read as another may make two patients of one.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import BinaryIO, TextIO

from sfumato_common.errors import DataError

_OLD_WORKBOOK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SEVEN_BITS = (b"\x1b$", b"\x1b(")  # what begins and ends other letters in ISO-2022 (ECMA-35)
_PIECE = 2**20  # bytes of a table that are looked at at once
_SAVE = "save it as 'CSV UTF-8'"


def opened_table(path: Path) -> TextIO:
    """A file as text, which is not in memory as a whole. Raises DataError for neither UTF-8 nor UTF-16 with a mark."""
    try:
        with path.open("rb") as stream:
            encoding = _encoding(path, stream.read(64))
            stream.seek(0)
            _check(path, stream, encoding)
        return path.open(encoding=encoding, newline="")
    except OSError as error:
        raise DataError(
            f"table '{path.name}' cannot be read ({error.strerror}); check the path, which counts from the folder in "
            f"which the command runs, '{Path.cwd().name}'"
        ) from None


def _encoding(path: Path, head: bytes) -> str:
    if head[:2] == b"PK" or head[:8] == _OLD_WORKBOOK:
        raise DataError(f"table '{path.name}' is an Excel workbook, not a CSV; {_SAVE}")
    # what has a mark says so itself: 'Unicode text' of Excel
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") and head[:4] != b"\xff\xfe\0\0":
        return "utf-16"
    if 0 < 8 * head.count(0) < len(head):  # a few among text; every other sign, or more, is an encoding
        line = head[: head.index(0)].count(b"\n") + 1
        raise DataError(f"table '{path.name}' has a null sign in line {line}, as of a damaged export; {_SAVE}")
    if b"\0" in head:
        raise DataError(f"table '{path.name}' is UTF-16 without a mark, or UTF-32, not UTF-8; {_SAVE}")
    return "utf-8-sig"


def _check(path: Path, stream: BinaryIO, encoding: str) -> None:
    """Raises DataError with the line that is not in this encoding."""
    decoder, line, before = codecs.getincrementaldecoder(encoding)(), 1, b""
    while piece := stream.read(_PIECE):
        if encoding != "utf-16" and any(mark in before + piece for mark in _SEVEN_BITS):
            raise DataError(f"table '{path.name}' is in ISO-2022, not UTF-8; {_SAVE}")
        waiting = len(decoder.getstate()[0])
        try:
            decoder.decode(piece)
        except UnicodeDecodeError as error:
            line += piece[: max(0, error.start - waiting)].count(b"\n")
            raise _not_in(path, encoding, line) from None
        line, before = line + piece.count(b"\n"), piece[-1:]
    try:
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        raise _not_in(path, encoding, line) from None


def _not_in(path: Path, encoding: str, line: int) -> DataError:
    if encoding == "utf-16":
        return DataError(f"table '{path.name}' is UTF-16, and is cut off or damaged; {_SAVE}")
    return DataError(
        f"table '{path.name}' is not UTF-8 at line {line} (Windows-1252 or another code page, as Excel writes it); "
        f"{_SAVE}"
    )

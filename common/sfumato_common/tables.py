"""CSV files with a header line, as people and spreadsheets write them."""

from __future__ import annotations

import csv
import difflib
import io
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from sfumato_common.errors import DataError

Row = dict[str, str]
# of an index of npz archives: a row an image
INDEX_COLUMNS = ("set", "row", "site", "patient_id", "split", "abnormal")
_SEPARATORS = (",", ";", "\t", "|")
_SAVE = "save it as 'CSV UTF-8'"


def read_table(
    path: Path,
    required: tuple[str, ...],
    optional: Collection[str] | None = None,
    columns: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> list[Row]:
    """Rows of a CSV with a header line, by our names of columns; values stripped.

    Comma, semicolon, tab or bar separate; capitals of the header do not matter. `columns` says what the table calls
    ours. Where `optional` is given, a column that is in none of the lists is an error: a misspelt one would be passed
    over. Raises DataError that names the line or column.
    """
    return list(iterate_table(path, required, optional, columns, ignored))


def iterate_table(
    path: Path,
    required: tuple[str, ...],
    optional: Collection[str] | None = None,
    columns: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> Iterator[Row]:
    """`read_table` row by row, for tables of millions; what is wrong is raised at its row."""
    stream = io.TextIOWrapper(io.BytesIO(_bytes(path)), encoding="utf-8-sig", newline="")
    first = stream.readline()
    if first.strip().lower().startswith("sep="):  # Excel's own first line
        first = stream.readline()
    if not first:
        raise DataError(f"table '{path.name}' has no rows; list the images in it")
    separator = _separator(first.splitlines()[0], required, columns or {})
    reader = csv.reader(itertools.chain([first], stream), delimiter=separator, strict=True)
    names, found = list[str | None](), False
    try:
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if not names:
                try:
                    names = _header(path, values, required, optional, columns or {}, ignored)
                except DataError:
                    for _ in reader:  # a quote that does not end is told first: the header may be its victim
                        pass
                    raise
                continue
            found = True
            yield _row(path, names, reader.line_num, values, separator)
    except csv.Error:
        raise DataError(
            f"table '{path.name}' cannot be read at line {reader.line_num}: a quote that does not end, or stands "
            "in the middle of a value; correct it"
        ) from None
    if not found:
        raise DataError(f"table '{path.name}' has no rows; list the images in it")


def _bytes(path: Path) -> bytes:
    """The bytes of a file that is UTF-8."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"table '{path.name}' cannot be read ({error.strerror}); check the path") from None
    if raw[:2] == b"PK":
        raise DataError(f"table '{path.name}' is an Excel workbook, not a CSV; {_SAVE}")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in raw[:64]:
        raise DataError(f"table '{path.name}' is UTF-16, not UTF-8; {_SAVE}")
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"table '{path.name}' is not UTF-8 at line {line} (Windows-1252 or Latin-1, as Excel writes it); {_SAVE}"
        ) from None
    return raw


def _separator(header: str, required: Sequence[str], columns: Mapping[str, str]) -> str:
    """Which separator makes most of the needed columns of the header line."""
    wanted = {_plain(columns.get(name, name)) for name in required}

    def found(separator: str) -> int:
        names = [_plain(name.strip().strip('"')) for name in header.split(separator)]
        return 100 * len(wanted & set(names)) + min(len(names), 99)

    return max(_SEPARATORS, key=found)


def _header(
    path: Path,
    written: Sequence[str],
    required: Sequence[str],
    optional: Collection[str] | None,
    columns: Mapping[str, str],
    ignored: Collection[str],
) -> list[str | None]:
    """Our name of every column, None for one that is ignored."""
    known = [*required, *(optional or ())]
    ours = {columns.get(name, name).strip().lower(): name for name in known}
    dropped = {name.strip().lower() for name in ignored}
    names: list[str | None] = []
    unknown = list[str]()
    for title in (title.strip() for title in written):
        name = ours.get(title.lower())
        if name is None and (optional is None or title.lower() in dropped or not title):
            name = title.lower() if optional is None else None
        elif name is None:
            unknown.append(title)
        names.append(name)
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise DataError(f"table '{path.name}' has column '{twice[0]}' twice; which is meant? Remove the other")
    for name in required:
        if name not in names:
            wanted = columns.get(name, name)
            near = _nearest(wanted, [title.strip() for title in written])
            hint = f"; is '{near}' meant? Rename it, or write it under 'columns' of the source" if near else ""
            raise DataError(f"table '{path.name}' has no column '{wanted}'; it needs {','.join(required)}{hint}")
    if unknown:
        near = _nearest(unknown[0], known)
        hint = f"is '{near}' meant? " if near else ""
        raise DataError(
            f"table '{path.name}' has a column '{unknown[0]}' that nothing reads; {hint}Rename it, or list it under "
            "'ignored_columns' of the source"
        )
    return names


def _row(path: Path, names: Sequence[str | None], number: int, values: Sequence[str], separator: str) -> Row:
    if len(values) > len(names):
        raise DataError(
            f"table '{path.name}' line {number} has {len(values)} values for {len(names)} columns; put a value that "
            f"holds '{separator}' in quotes"
        )
    padded = [*values, *[""] * (len(names) - len(values))]
    return {name: value.strip() for name, value in zip(names, padded, strict=True) if name is not None}


def _nearest(name: str, known: Sequence[str]) -> str | None:
    plain = {_plain(each): each for each in known}
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.7)
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())

"""CSV files with a header line, as people and spreadsheets write them."""

from __future__ import annotations

import csv
import difflib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from sfumato_common.errors import DataError
from sfumato_common.table_text import opened_table

Row = dict[str, str]
# of an index of npz archives: a row an image
INDEX_COLUMNS = ("set", "row", "site", "patient_id", "split", "abnormal")
_SEPARATORS = (",", ";", "\t", "|")
_TITLES = 6  # rows that a header is looked for in


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
    with opened_table(path) as stream:
        try:
            yield from _rows(path, stream, required, optional, columns or {}, ignored)
        except UnicodeDecodeError:  # it was whole a moment ago
            raise DataError(f"table '{path.name}' was changed while it was read; run it again") from None


def _rows(
    path: Path,
    stream: TextIO,
    required: tuple[str, ...],
    optional: Collection[str] | None,
    columns: Mapping[str, str],
    ignored: Collection[str],
) -> Iterator[Row]:
    first, skipped = stream.readline(), 0
    # blank lines, and Excel's own first one
    while first and (not first.strip(" \t\r\n,;|") or first.strip(' "\t\r\n').lower().startswith("sep=")):
        first, skipped = stream.readline(), skipped + 1
    if not first:
        raise DataError(f"table '{path.name}' has no rows; list the images in it")
    separator = _separator(first.splitlines()[0], required, columns)
    reader = csv.reader(itertools.chain([first], stream), delimiter=separator, strict=True)
    rows = ((reader.line_num + skipped, values) for values in reader if any(map(_seen, values)))
    try:
        top = list(itertools.islice(rows, _TITLES))
        try:
            names = _names(path, top, required, optional, columns, ignored)
        except DataError:
            for _ in reader:  # a quote that does not end is told first: the header may be its victim
                pass
            raise
        if len(top) < 2:
            raise DataError(f"table '{path.name}' has no rows; list the images in it")
        for number, values in itertools.chain(top[1:], rows):
            yield _row(path, names, number, values, separator)
    except csv.Error:
        raise DataError(
            f"table '{path.name}' cannot be read at line {reader.line_num + skipped}: a quote that does not end, or "
            "stands in the middle of a value; correct it"
        ) from None


def _names(
    path: Path,
    top: Sequence[tuple[int, list[str]]],
    required: tuple[str, ...],
    optional: Collection[str] | None,
    columns: Mapping[str, str],
    ignored: Collection[str],
) -> list[str | None]:
    """`_header` of the first of some (line, values). Raises DataError, too, where a later line is the header."""
    titles = [[_title(value) for value in values] for _, values in top]
    wanted = {columns.get(name, name).lower() for name in required}
    for (number, _), row in zip(top[1:], titles[1:], strict=True):
        if wanted <= {title.lower() for title in row} and not wanted <= {title.lower() for title in titles[0]}:
            raise DataError(f"table '{path.name}' has its header in line {number}; delete the lines above it")
    return _header(path, titles[0], required, optional, columns, ignored)


def _separator(header: str, required: Sequence[str], columns: Mapping[str, str]) -> str:
    """Which separator makes most of the needed columns of the header line."""
    wanted = {_plain(columns.get(name, name)) for name in required}

    def found(separator: str) -> int:
        names = [_plain(_seen(name).strip('"')) for name in header.split(separator)]
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
            if not near:
                shown = ", ".join(f"'{title.strip()}'" for title in written[:8])
                hint = f"; it has {shown}: say which is meant under 'columns' of the source"
            if len(written) == 1 and (sign := _unknown_separator(written[0], required, columns)):
                hint = f". Its values seem to be separated by {sign}: save it with commas"
            raise DataError(f"table '{path.name}' has no column '{wanted}'; it needs {','.join(required)}{hint}")
    if unknown:
        near = _nearest(unknown[0], known)
        hint = f"is '{near}' meant? " if near else ""
        raise DataError(
            f"table '{path.name}' has a column '{unknown[0]}' that nothing reads; {hint}Rename it, or list it under "
            "'ignored_columns' of the source"
        )
    return names


def _unknown_separator(header: str, required: Sequence[str], columns: Mapping[str, str]) -> str | None:
    """What stands between the needed columns of a header that no separator divides."""
    wanted = [re.escape(columns.get(name, name).strip().lower()) for name in required]
    between = re.split("|".join(wanted), header.lower())
    signs = {part.strip() or " " for part in between if part}
    if len(between) <= len(required) or len(signs) != 1:
        return None
    sign = signs.pop()
    return "blanks" if sign == " " else f"'{sign}'" if sign.isprintable() else "a sign that is not seen"


def _row(path: Path, names: Sequence[str | None], number: int, values: Sequence[str], separator: str) -> Row:
    if len(values) > len(names):
        raise DataError(
            f"table '{path.name}' line {number} has {len(values)} values for {len(names)} columns; put a value that "
            f"holds '{separator}' in quotes"
        )
    if len(values) == 1 < len(names) and (other := _other_separator(values[0], len(names))):
        raise DataError(
            f"table '{path.name}' line {number} is separated by '{other}', its header by '{separator}'; save it with "
            "one separator"
        )
    padded = [*values, *[""] * (len(names) - len(values))]
    return {name: _seen(value) for name, value in zip(names, padded, strict=True) if name is not None}


def _other_separator(value: str, columns: int) -> str | None:
    return next((sign for sign in _SEPARATORS if value.count(sign) == columns - 1), None)


def _title(value: str) -> str:
    """A column's name as a person reads it: the letters in one form, without signs that are not seen."""
    text = unicodedata.normalize("NFKC", _seen(value))
    return "".join(sign for sign in text if unicodedata.category(sign) != "Cf")


def _seen(value: str) -> str:
    """A value as a person sees it: without blanks and unseen signs around it, and Excel's `="..."` that keeps zeros."""
    if value[:1].isalnum() and value[-1:].isalnum():  # nearly all
        return value
    start, end = 0, len(value)
    while start < end and _is_unseen(value[start]):
        start += 1
    while end > start and _is_unseen(value[end - 1]):
        end -= 1
    text = value[start:end]
    return text[2:-1].strip() if len(text) > 2 and text.startswith('="') and text.endswith('"') else text


def _is_unseen(sign: str) -> bool:
    return sign.isspace() or unicodedata.category(sign) in ("Cf", "Cc")


def _nearest(name: str, known: Sequence[str]) -> str | None:
    plain = {_plain(each): each for each in known}
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.7)
    near = near or [title for title in plain if _plain(name) in title]  # `Image file name`
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())

"""CSV tables that say what a folder's files are: labels, patients, splits."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_client.ingest.alike import says_no_id
from sfumato_client.ingest.records import SPLIT_NAMES, Split, UnreadableError
from sfumato_common.errors import ConfigError
from sfumato_common.tables import Row

# of every table of files, beside those that its kind needs
OPTIONAL_COLUMNS = ("patient_id", "split", "laterality", "view")
_LISTS = ("|", ";")


class Listing:
    """The rows of a table, read anew at every pass, and what one pass over all of them says.

    A table of a million rows is then never in memory, and what is wrong in its last row is known before the first file
    is read. Raises DataError.
    """

    def __init__(self, rows: Callable[[], Iterable[Row]]) -> None:
        self._rows, self._count, self.splits = rows, 0, False
        for row in rows():
            self._count += 1
            self.splits = self.splits or bool(row.get("split"))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows())


class Listed:
    """The rows of a table that were read so far, by file: the same row again is passed over, another one is not.

    Files and words are kept as hashes: of a million rows only these are in memory.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}

    def take(self, path: Path, row: Mapping[str, str]) -> None:
        """Note a row. Raises UnreadableError where the same file was listed before with the same words."""
        words = repr(sorted((name, value) for name, value in row.items() if name != "file")).encode()
        said, file = _short(words), _short(os.fsencode(path.resolve()))
        if file not in self._rows:
            self._rows[file] = said
        elif self._rows[file] == said:
            raise UnreadableError("listed twice; the first row counts")

    def __contains__(self, path: Path) -> bool:
        """Whether a file, without links in its path, was listed."""
        return _short(os.fsencode(path)) in self._rows


def _short(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16).digest()


@dataclass(frozen=True)
class Labels:
    """What a table's words for labels mean: the plan's names, whatever their capitals, and those of `mapped`.

    `mapped` are the source's own: a word of the table, and the plan's label or None for "drop it". A cell may list
    several, separated by '|' or ';': those that mean something have to mean the same.
    """

    names: Sequence[str]
    mapped: Mapping[str, str | None] = field(default_factory=dict)

    @staticmethod
    def of(names: Sequence[str], mapped: Mapping[str, str | None]) -> Labels:
        """Labels of a plan and a source. Raises ConfigError where the source maps to a label that the plan has not."""
        if wrong := sorted({name for name in mapped.values() if name is not None} - set(names)):
            raise ConfigError(f"'map' of the source names '{wrong[0]}'; the plan's labels are {', '.join(names)}")
        return Labels(names, mapped)

    def index(self, cell: str) -> int:
        """Place of a cell's label in the plan's list. Raises UnreadableError for one that means none of them."""
        if not cell:
            raise UnreadableError("it has no label")
        words = self._words()
        whole = _number_word(cell)
        parts = [whole] if whole in words else [part for part in _parts(cell) if part]
        found = {words[part] for part in parts if part in words}
        if not found:
            shown = ", ".join(self.names)
            raise UnreadableError(f"its label is not one of the plan's ({shown}), and 'map' of the source has none")
        if len(found) > 1:
            raise UnreadableError("its labels mean more than one of the plan's")
        name = found.pop()
        if name is None:
            raise UnreadableError("its label is one that 'map' of the source drops")
        return list(self.names).index(name)

    def _words(self) -> dict[str, str | None]:
        return {name.casefold(): name for name in self.names} | {
            _number_word(word): name for word, name in self.mapped.items()
        }


def _parts(cell: str) -> list[str]:
    for sign in _LISTS[1:]:
        cell = cell.replace(sign, _LISTS[0])
    return [_number_word(part.strip()) for part in cell.split(_LISTS[0])]


def _number_word(word: str) -> str:
    """`1.0` is `1`, as pandas writes whole numbers; words without their capitals."""
    try:
        value = float(word)
    except ValueError:
        return word.strip().casefold()
    return str(int(value)) if math.isfinite(value) and value == int(value) else word.strip()


def patient_of(cell: str) -> str:
    """A table's patient id. Raises UnreadableError for an empty one, and for a program's word for nothing."""
    if not cell or says_no_id(cell):
        raise UnreadableError("no patient id: the patient is the unit of protection")
    return cell


def split_name(value: str) -> Split:
    """`train`/`val`/`validation`, `test`/`holdout` -> the house's names. Raises UnreadableError for anything else."""
    name = SPLIT_NAMES.get(value.strip().casefold())
    if name is None:
        raise UnreadableError("its split is none of train, validation, holdout")
    return name

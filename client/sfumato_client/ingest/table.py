"""CSV tables that say what a folder's files are: labels, patients, splits."""

from __future__ import annotations

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sfumato_client.ingest.alike import says_nothing
from sfumato_client.ingest.records import LISTED_TWICE, SPLIT_NAMES, Split
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.errors import ConfigError
from sfumato_common.tables import Row

# of every table of files, beside those that its kind needs
OPTIONAL_COLUMNS = ("patient_id", "split", "laterality", "view")
# of keyboards and of word processors
QUOTES = "'\"`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"
_FEWEST_PLACES, _FULL = 4096, 0.75
_LISTS = re.compile(r"[|;]")
_CODE = re.compile(r"\d")
_OF_A_SET = re.compile("(set|txt)$")  # `test set`, `test.txt`
# a list as Python and JSON write it
_BRACKETS, _QUOTED = re.compile(r"\[(.*)\]", re.DOTALL), re.compile(r"""'([^']*)'|"([^"]*)"|([^,]+)""")
# words for an image with nothing in it, which no finding can stand beside
_NO_FINDING = {"no finding", "no findings", "normal", "healthy", "negative", "unremarkable"}


class Listing:
    """The rows of a table, read anew at every pass, and what one pass over all of them says.

    A table of a million rows is then never in memory, and what is wrong in its last row is known before the first file
    is read. Raises DataError.
    """

    def __init__(self, rows: Callable[[], Iterable[Row]]) -> None:
        self._rows, self._count, self.splits = rows, 0, False
        for row in rows():
            self._count += 1
            self.splits = self.splits or not says_nothing(row.get("split", ""))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows())


class Listed:
    """The rows of a table that were read so far, by file: the same row again is passed over, another one is not.

    Files and words are kept as hashes of 64 bits in a table of open addressing (Knuth 6.4), 21 bytes a row; of a
    million files two have one hash with probability 3e-8. There may be more rows than `most`: the table grows then.
    """

    def __init__(self, most: int = 0) -> None:
        self._count, self._places = 0, np.zeros((_room(most), 2), np.uint64)

    def take(self, path: Path, row: Mapping[str, str]) -> None:
        """Note a row. Raises UnreadableError where the same file was listed before with the same words."""
        words = repr(sorted((name, value) for name, value in row.items() if name != "file")).encode()
        said, file = _short(words), _short(os.fsencode(path.resolve()))
        place = self._place(file)
        if not self._places[place, 0]:
            self._places[place] = file, said
            self._count += 1
            if self._count >= _FULL * len(self._places):
                self._grow()
        elif int(self._places[place, 1]) == said:
            raise UnreadableError(LISTED_TWICE)

    def __contains__(self, path: Path) -> bool:
        """Whether a file, without links in its path, was listed."""
        return bool(self._places[self._place(_short(os.fsencode(path))), 0])

    def _place(self, file: int) -> int:
        """Where a file stands, or is to stand."""
        places, place = self._places, file % len(self._places)
        while (there := int(places[place, 0])) and there != file:
            place = (place + 1) % len(places)
        return place

    def _grow(self) -> None:
        before, self._places = self._places, np.zeros((_room(2 * self._count), 2), np.uint64)
        for at in np.flatnonzero(before[:, 0]):
            self._places[self._place(int(before[at, 0]))] = before[at]


def _room(rows: int) -> int:
    return max(_FEWEST_PLACES, int(rows / _FULL) + 1)


def _short(value: bytes) -> int:
    """A hash, and never 0, which stands for an empty place."""
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little") or 1


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
        meant: dict[str, str | None] = {}
        for word, name in mapped.items():
            if meant.setdefault(_word(word), name) != name:
                raise ConfigError(f"'map' of the source gives '{word}' two meanings; keep one")
        return Labels(names, mapped)

    def index(self, cell: str) -> int:
        """Place of a cell's label in the plan's list. Raises UnreadableError for one that means none of them."""
        if not cell:
            raise UnreadableError("it has no label")
        words = self._words()
        whole = _word(cell)
        parts = [whole] if whole in words else [part for part in _parts(cell) if part]
        found = {words[part] for part in parts if part in words}
        if not found:
            shown = ", ".join(self.names)
            raise UnreadableError(f"its label is not one of the plan's ({shown}), and 'map' of the source has none")
        if len(found) > 1:
            raise UnreadableError("its labels mean more than one of the plan's")
        # a code beside its meaning is no second finding
        if {part in _NO_FINDING for part in parts if not _CODE.search(part)} == {True, False}:
            raise UnreadableError("its labels say that there is no finding, beside others")
        name = found.pop()
        if name is None:
            raise UnreadableError("its label is one that 'map' of the source drops")
        return list(self.names).index(name)

    def _words(self) -> dict[str, str | None]:
        return {_word(name): name for name in self.names} | {_word(word): name for word, name in self.mapped.items()}


def _parts(cell: str) -> list[str]:
    if bracketed := _BRACKETS.fullmatch(cell.strip()):
        return [_word(next(filter(None, found), "")) for found in _QUOTED.findall(bracketed[1])]
    return [_word(part) for part in _LISTS.split(cell)]


def _word(written: str) -> str:
    """A word by what is read of it: its letters in one form, without capitals, quotes and double blanks; `1.0` is `1`.

    pandas writes whole numbers so, and spreadsheets of some countries `1,0`.
    """
    text = " ".join(unicodedata.normalize("NFKC", written).casefold().split()).strip(QUOTES)
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return text
    return str(int(value)) if math.isfinite(value) and value == int(value) else text


def patient_of(cell: str) -> str:
    """A table's patient id. Raises UnreadableError for an empty one, and for a program's word for nothing."""
    if not cell or says_nothing(cell):
        raise UnreadableError("no patient id: the patient is the unit of protection")
    return cell


def split_name(value: str) -> Split:
    """`train`/`val`/`validation`, `test`/`holdout` -> the house's names. Raises UnreadableError for anything else."""
    letters = "".join(sign for sign in value.casefold() if sign.isalnum())
    name = SPLIT_NAMES.get(_OF_A_SET.sub("", letters))
    if name is None:
        raise UnreadableError("its split is none of train, validation, holdout")
    return name

"""CSV tables that say what a folder's files are: labels, patients, splits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_client.ingest.alike import says_no_id
from sfumato_client.ingest.records import SPLIT_NAMES, Split, UnreadableError
from sfumato_common.errors import ConfigError

# of every table of files, beside those that its kind needs
OPTIONAL_COLUMNS = ("patient_id", "split", "laterality", "view")
_LISTS = ("|", ";")


@dataclass
class Listed:
    """The rows of a table that were read so far, by file: the same row again is passed over, another one is not."""

    rows: dict[Path, Mapping[str, str]] = field(default_factory=dict)

    def take(self, path: Path, row: Mapping[str, str]) -> None:
        """Note a row. Raises UnreadableError where the same file was listed before with the same words."""
        said = {name: value for name, value in row.items() if name != "file"}
        before = self.rows.setdefault(path.resolve(), said)
        if before is not said and before == said:
            raise UnreadableError("listed twice; the first row counts")

    def names(self, folder: Path) -> set[str]:
        """Relative names of the files that were listed."""
        root = folder.resolve()
        return {path.relative_to(root).as_posix() for path in self.rows if path.is_relative_to(root)}


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


def has_splits(rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether a table says splits: it has the column, and something in it."""
    return any(row.get("split") for row in rows)

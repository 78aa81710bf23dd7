"""CSV tables that say what a folder's files are: labels, patients, splits."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sfumato_client.ingest.alike import says_no_id
from sfumato_client.ingest.records import SPLIT_NAMES, Split, Stamp, UnreadableError
from sfumato_common.errors import ConfigError, DataError
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


def check_folder(folder: Path) -> None:
    """Raises DataError unless `folder` is a folder that can be listed."""
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except NotADirectoryError:
        raise DataError(f"'{folder.name}' is a file, not a folder; unpack it where it is an archive") from None
    except OSError as error:
        raise DataError(
            f"data folder '{folder.name}' cannot be read ({error.strerror}); check the path and its rights"
        ) from None


def unlisted_files(folder: Path, listed: Listed, table: Path) -> Iterator[str]:
    """Relative names of files in the folder that no row names (the table itself and hidden files aside), in order.

    Folder by folder: of a million files the names of one folder's unlisted ones are in memory.
    """
    skip, waiting = table.resolve(), [(folder, folder.resolve())]
    while waiting:
        here, real = waiting.pop()
        files, folders = list[str](), list[str]()
        with contextlib.suppress(PermissionError), os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir():
                    # as rglob: a link to a folder is not followed, it may lead around
                    folders += [] if entry.is_symlink() else [entry.name]
                elif entry.is_file() and not entry.name.startswith("."):
                    path = Path(entry.path).resolve() if entry.is_symlink() else real / entry.name
                    files += [] if path in listed or path == skip else [entry.name]
        waiting += [(here / name, real / name) for name in sorted(folders, reverse=True)]
        yield from ((here / name).relative_to(folder).as_posix() for name in sorted(files))


def inside(folder: Path, name: str) -> Path:
    """The file that a row names. Raises UnreadableError for no name, a path out of the folder, or a missing file."""
    relative = PurePosixPath(name)
    if "\\" in name and not (folder / relative).is_file():  # written on Windows
        relative = PurePosixPath(name.replace("\\", "/"))
    if not name or relative.is_absolute() or ".." in relative.parts:
        raise UnreadableError("the file name is empty or leads out of the folder")
    path = folder / relative
    if not path.is_file():
        raise UnreadableError("file not found")
    return path


def stamp_of(folder: Path, name: str, words: str, about: str = "") -> Stamp:
    """A row's stamp, of the file that it names as it is now; -1 for the size of none."""
    return Stamp(about or name, words, name, *state_of(folder, name))


def state_of(folder: Path, name: str) -> tuple[int, int]:
    """Size and time (ns) of the file that a row names; (-1, 0) of none."""
    try:
        found = inside(folder, name).stat()
    except (UnreadableError, OSError, ValueError):
        return -1, 0
    return found.st_size, found.st_mtime_ns


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

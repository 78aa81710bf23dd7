"""CSV tables that say what a folder's files are: labels, patients, splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from sfumato_client.ingest.records import SPLIT_NAMES, Split, UnreadableError
from sfumato_common.errors import DataError


def check_folder(folder: Path) -> None:
    """Raises DataError unless `folder` is a folder that can be listed."""
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise DataError(
            f"data folder '{folder.name}' cannot be read ({type(error).__name__}); check the path and its rights"
        ) from None


def unlisted_files(folder: Path, listed: set[str], table: Path) -> Iterator[str]:
    """Relative names of files in the folder that no row names (the table itself and hidden files aside)."""
    skip = table.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in listed and not path.name.startswith(".") and path.resolve() != skip:
            yield name


def inside(folder: Path, name: str) -> Path:
    """The file that a row names. Raises UnreadableError for no name, a path out of the folder, or a missing file."""
    relative = PurePosixPath(name)
    if not name or relative.is_absolute() or ".." in relative.parts:
        raise UnreadableError("the file name is empty or leads out of the folder")
    path = folder / relative
    if not path.is_file():
        raise UnreadableError("file not found")
    return path


def label_index(name: str, labels: list[str]) -> int:
    """Place of a label name in the plan's list. Raises UnreadableError for an unknown one."""
    if name not in labels:
        raise UnreadableError("its label is not one of the plan's")
    return labels.index(name)


def split_name(value: str) -> Split:
    """`train`/`val`/`validation`, `test`/`holdout` -> the house's names. Raises UnreadableError for anything else."""
    if value not in SPLIT_NAMES:
        raise UnreadableError("its split is none of train, validation, holdout")
    return SPLIT_NAMES[value]

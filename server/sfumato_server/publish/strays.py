"""What systems and portals lay into a folder that they were given: told apart from what was altered or smuggled in.

Nothing here is read by anything that reads a set. A name that is not in these tables is no stray, whatever it looks
like.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sfumato_common.errors import VerificationError

# what macOS, Windows and desktops of Linux write into any folder, in lower case
_OF_SYSTEMS = frozenset((
    ".ds_store", ".directory", ".fseventsd", ".spotlight-v100", ".trashes", "$recycle.bin", "__macosx", "desktop.ini",
    "ehthumbs.db", "system volume information", "thumbs.db",
))  # fmt: skip
# what comes with a download or an upload, beside the set and nowhere else: Git, Hugging Face and Kaggle
_OF_PORTALS = frozenset((".cache", ".git", ".gitattributes", ".gitignore", "dataset-metadata.json"))
_MOST_NAMED = 5


def is_stray(name: str) -> bool:
    """Whether the file or folder, by its name within the set ('images/alder/.DS_Store'), is a system's or a portal's.

    A folder's content goes with it. `._NAME` is where macOS keeps what another file system has no place for.
    """
    folder, _, last = name.rpartition("/")
    return last.lower() in _OF_SYSTEMS or last.startswith("._") or (not folder and last in _OF_PORTALS)


def walk_tree(folder: Path, below: str, leaves: set[str]) -> Iterator[tuple[str, bool]]:
    """Every file and folder of the set but strays, by name, and whether it is a folder; `leaves` are not entered.

    Raises VerificationError for what is neither a plain file nor a folder, whatever its name.
    """
    for item in sorted((folder / below).iterdir()):
        name = item.relative_to(folder).as_posix()
        if item.is_symlink() or not (item.is_file() or item.is_dir()):
            raise VerificationError(f"{name} is not a plain file")
        if is_stray(name):
            continue
        yield name, item.is_dir()
        if item.is_dir() and name not in leaves:
            yield from walk_tree(folder, name, leaves)


def strays_in(folder: Path) -> tuple[str, ...]:
    """Every stray of the set in `folder`, in order; of what lies within one that is a folder, nothing."""
    found = []
    for above, folders, files in os.walk(folder):
        here = "" if above == str(folder) else f"{Path(above).relative_to(folder).as_posix()}/"
        strays = [name for name in (*folders, *files) if is_stray(f"{here}{name}")]
        found += [f"{here}{name}" for name in strays]
        folders[:] = [name for name in folders if name not in strays]
    return tuple(sorted(found))


def stray_line(strays: Iterable[str]) -> str:
    """One line for the screen: what lies in the folder, is no part of the set, and was not looked at."""
    return (
        f"no part of the set, and not looked at: {_named(list(strays))}; programs that take every file need them gone"
    )


class ExcessError(VerificationError):
    """All of a set holds, and something else lies beside it."""


def refuse_extra(extra: list[str]) -> None:
    """Raise ExcessError where there is anything that is neither the set's nor a stray, the set itself holding."""
    if extra:
        verb = "does" if len(extra) == 1 else "do"
        raise ExcessError(
            f"{_named(extra)} {verb} not belong to the data set, all of whose own files hold; "
            "remove what a portal or a person added, and verify again"
        )


def _named(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

"""Two copies of one coordinator ask one federation twice: how a home that was copied or handed over is told.

Two files in the home. `place.json` has its own number on its disk (inode), which a copy does not have, and what people
said of copies; `moved.json` says that the coordinator lives elsewhere now. A copy of a whole disk has the same number
and is not told. Sites are no help: each answers whoever has the keys, and keeps its answers for one question each.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfumato_common.errors import ConfigError
from sfumato_common.files import move_into_place, write_json

PLACE, MOVED = "place.json", "moved.json"
_MOVED = (
    "this coordinator was handed over to another machine: it goes on there, and here it asks, enrols and signs nothing "
    "any more. To go on here after all, stop the other one, hand it over, and restore what it writes"
)
_COPIED = (
    "this home was copied, or restored from a backup: where another copy of it runs, rounds are asked twice and lost, "
    "releases are split over two, and what one revokes the other lets in. Stop the other one for good, and say so by "
    "'sfumato coordinator run --only-copy'"
)


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def require_only(home: Path) -> None:
    """Raise ConfigError for a home that lives elsewhere now, or is a copy of which nobody said that it is alone."""
    if (home / MOVED).exists():
        raise ConfigError(_MOVED)
    if is_copy(home):
        raise ConfigError(_COPIED)


def is_copy(home: Path) -> bool:
    """Whether the home lies elsewhere than it was noted; False where that never was."""
    path = home / PLACE
    return path.exists() and _read(path).get("inode") != path.stat().st_ino


def keep_place(home: Path, words: str = "") -> None:
    """Note where the home lies, so that a copy of it is told; and `words` on what it was."""
    path = home / PLACE
    said = _read(path).get("said", []) if path.exists() else []
    handle, temporary = tempfile.mkstemp(dir=home, prefix=f".{PLACE}.")
    with os.fdopen(handle, "w") as stream:
        said = [*said, {"at": now(), "words": words}] if words else said
        json.dump({"inode": os.fstat(stream.fileno()).st_ino, "said": said}, stream, indent=2)
    move_into_place(Path(temporary), path, mode=0o600)


def note_place(home: Path) -> None:
    """Note where a home lies that was noted nowhere yet."""
    if not (home / PLACE).exists():
        keep_place(home)


def mark_copy(home: Path, words: str) -> None:
    """Let the home pass for a copy, whatever number its file has by chance, until a person has spoken."""
    path = home / PLACE
    said = _read(path).get("said", []) if path.exists() else []
    write_json(path, {"inode": None, "said": [*said, {"at": now(), "words": words}]})


def close_home(home: Path, to: str) -> None:
    """Close the home, durably: it lives in the archive of id `to` now."""
    write_json(home / MOVED, {"at": now(), "to": to})


def closed_for(home: Path) -> str:
    """The id of the archive that the home was handed over in; '' for one that is open."""
    path = home / MOVED
    return str(_read(path).get("to", "")) if path.exists() else ""


def reopen_home(home: Path) -> None:
    """Open it again, where what it was to be handed over in was never written."""
    (home / MOVED).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        raise ConfigError(f"'{path.name}' of the coordinator's home cannot be read; restore it from a backup") from None

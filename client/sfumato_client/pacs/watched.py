"""A folder that a gateway writes to: what no longer grows is copied into `incoming`; the folder itself is only read."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sfumato_client.pacs.incoming import Incoming, RejectedObjectError
from sfumato_common.errors import DataError

_PIECE = 1024**2
_LOOK_S = 1.0
# size and time of a file
_State = tuple[int, int]


def watch_folder(
    folder: Path,
    incoming: Incoming,
    settle_s: float,
    until: float | None,
    came: Counter[str],
) -> None:
    """Copy what comes until the clock (`time.monotonic`) is at `until`; None: what is there and settles, then end.

    A file is taken when size and time stayed as they were for `settle_s`, and stay so while it is copied. `came`
    counts what was kept, there already, or not taken and why. Raises DataError where the folder cannot be listed,
    NoRoomError where the disk is full.
    """
    waiting: dict[str, tuple[_State, float]] = {}
    taken: dict[str, _State] = {}
    while True:
        there = dict(_files(folder))
        now = time.monotonic()
        for path, state in there.items():
            if taken.get(path) == state:
                continue
            seen = waiting.get(path)
            if seen is None or seen[0] != state:
                waiting[path] = (state, now)
            elif now - seen[1] >= settle_s and (what := _take(Path(path), state, incoming)):
                came[what] += 1
                taken[path] = state
                del waiting[path]
        waiting = {path: seen for path, seen in waiting.items() if path in there}
        taken = {path: state for path, state in taken.items() if path in there}
        if not waiting if until is None else now >= until:
            return
        time.sleep(min(_LOOK_S, max(settle_s / 2, 0.05)))


def _files(folder: Path) -> Iterator[tuple[str, _State]]:
    """Regular files below a folder, hidden ones and links aside, with their state."""

    def fail(error: OSError) -> None:
        if Path(str(error.filename)) == folder:
            raise DataError(f"the folder '{folder.name}' cannot be read ({error.strerror}); check path and rights")

    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(root, name)  # noqa: PTH118 - a Path a file costs more than the rest of a look
            try:
                state = os.lstat(path)
            except OSError:
                continue  # it is gone again
            if not name.startswith(".") and (state.st_mode & 0o170000) == 0o100000:
                yield path, (state.st_size, state.st_mtime_ns)


def _take(path: Path, state: _State, incoming: Incoming) -> str:
    """What became of a file; empty where it changed meanwhile."""
    if state[0] > incoming.largest:
        return "larger than --largest-mib allows"
    try:
        with path.open("rb") as source, incoming.part() as (stream, part):
            left = state[0] + 1
            while left and (piece := source.read(min(_PIECE, left))):
                stream.write(piece)
                left -= len(piece)
            stream.flush()
            after = os.fstat(source.fileno())
            if (after.st_size, after.st_mtime_ns) != state or left != 1:
                return ""
            return "kept" if incoming.keep(part) else "there"
    except RejectedObjectError as reason:
        return str(reason)
    except (FileNotFoundError, PermissionError):
        return "a file that cannot be read"

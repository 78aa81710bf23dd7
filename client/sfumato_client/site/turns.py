"""Work that a kill may cut short: a mark on disk tells a process that was killed from one that failed.

What a site answers leaves only when its charge is settled, so work that was killed let nothing out, and the same
question may be worked on again under the same charge. What failed may not: whether work fails can depend on patients,
and each further try would tell a little more of them than was charged.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from sfumato_common.errors import NoRoomError, WorkerLost
from sfumato_common.files import write_json

# a kill by the kernel, for want of memory, can depend on patients too: how often the same work may be begun
MOST_TIMES = 3


@contextlib.contextmanager
def at_work(mark: Path, question: str) -> Iterator[bool]:
    """Hold `mark` while the body works on `question`; yields whether earlier work on the same was killed.

    The body's end, or its failure, takes the mark away; a kill leaves it, also that of a process that shared the work,
    and so does a full disk, as what is written has the sizes that the plan says. A mark of another question stays.
    """
    known, times = _read(mark)
    if known not in ("", question):
        yield False
        return
    write_json(mark, {"question": question, "times": times + 1})
    try:
        yield 0 < times < MOST_TIMES
    except (NoRoomError, WorkerLost):
        raise
    except Exception:
        mark.unlink()
        raise
    mark.unlink()


def _read(mark: Path) -> tuple[str, int]:
    """The question that was worked on, and how often it was begun; ('', 0) where there is no mark that can be read."""
    try:
        value = json.loads(mark.read_text())
        return str(value["question"]), int(value["times"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0

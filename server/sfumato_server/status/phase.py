"""What the coordinator's own process is doing: it writes its phase down, and its lock says whether it still lives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from sfumato_common.errors import SfumatoError
from sfumato_common.files import if_room, read_object, write_json
from sfumato_common.locks import is_held

FILE = "phase.json"
# 'killed' is never written: a process that says it works and holds no lock is gone
Phase = Literal["not started", "running", "publishing", "published", "failed", "interrupted", "killed"]


class Tell(Protocol):
    """Changes the phase; a published one has a report, whose path is kept for the coordinator's own page."""

    def __call__(self, phase: Phase, reason: str = "", report: Path | None = None) -> None:
        """From now on it is `phase`."""
        ...


@contextmanager
def keep_phase(root: Path) -> Iterator[Tell]:
    """Keep the phase of a run while the body runs; yields what changes it. How the body ends is kept, and raised on."""
    begun = time.time()

    def write(phase: Phase, reason: str = "", report: Path | None = None) -> None:
        times = {"begun": round(begun, 1), "since": round(time.time(), 1)}
        value = {"phase": phase, "reason": reason, "report": str(report.resolve()) if report else "", **times}
        with if_room():
            write_json(root / FILE, value)

    write("running")
    try:
        yield write
    except SfumatoError as error:
        write("failed", str(error))
        raise
    except KeyboardInterrupt:
        write("interrupted")
        raise
    except BaseException:
        write("failed", "internal fault in the coordinator")
        raise


def read_phase(root: Path) -> dict[str, Any]:
    """Phase, reason, and since when; 'killed' where a process ended without a word."""
    value = read_object(root / FILE)
    if not value:
        return {"phase": "not started", "reason": "", "report": "", "begun": None, "since": None}
    if value["phase"] in ("running", "publishing") and not is_held(root):
        value["phase"] = "killed"
    return {"report": "", **value}

"""When each site was last heard at the coordinator's front, and the step of its work that its policy lets it tell.

A site that works sends nothing but its node's heartbeats, every 15 to 25 s. One that is not heard for `SILENT_S` is
silent, whatever it was asked.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

from sfumato_common.files import if_room, read_object, write_json

SILENT_S = 90.0
_STEP = re.compile(rb"([0-9]{1,6})/([0-9]{1,6})")
Contact = dict[str, Any]


class Contacts:
    """Filled by the front's thread, written by the coordinator's own; a site's word is taken for what it is."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock, self._changed = path, threading.Lock(), False
        self._sites: dict[str, Contact] = {}
        path.unlink(missing_ok=True)

    def heard(self, site: str, told: bytes | None) -> None:
        """A request of `site` came, which told `told` of its work (`STEP/STEPS`); anything else tells nothing."""
        now = round(time.time(), 1)
        found = None if told is None else _STEP.fullmatch(told)
        step, steps = (None, None) if found is None else (int(found[1]), int(found[2]))
        with self._lock:
            before = self._sites.get(site, {})
            same = (before.get("step"), before.get("steps")) == (step, steps)
            since = before["step_since"] if same and before else now
            self._sites[site] = {"heard": now, "step": step, "steps": steps, "step_since": since}
            self._changed = True

    def write(self) -> None:
        """Write the file, where anything was heard since it was last written."""
        with self._lock:
            sites, changed, self._changed = dict(self._sites), self._changed, False
        if changed:
            with if_room():
                write_json(self._path, sites)


def read_contacts(path: Path) -> dict[str, Contact]:
    """What the file says, by site; nothing where there is none, as in a study without Flower."""
    return read_object(path)

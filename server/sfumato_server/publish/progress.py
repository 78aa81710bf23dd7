"""How far pooling and publishing are: a line of the coordinator's log at times, and a file for whoever watches."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from sfumato_common.files import if_room, read_object, write_json

_EVERY_S, _FILE_S = 10.0, 1.0
FILE = "publishing.json"

log = logging.getLogger(__name__)


class LoggedProgress:
    """Called with how many images are done since the last call; `total` is how many there are to do.

    With `root` it keeps how far it is in that folder.
    """

    def __init__(self, what: str, total: int, root: Path | None = None) -> None:
        self._what, self._total, self._done, self._root = what, total, 0, root
        self._begun = self._told = time.monotonic()
        self._kept = 0.0

    def __call__(self, images: int) -> None:
        """So many more are done."""
        if not self._done:
            self._begun = self._told = time.monotonic()  # what is made ahead waits for those before it
        self._done += images
        now = time.monotonic()
        if not self._done:
            return
        left = (now - self._begun) * max(self._total - self._done, 0) / self._done
        if self._root is not None and (now - self._kept >= _FILE_S or self._done >= self._total):
            self._kept = now
            with if_room():
                value = {"what": self._what, "done": self._done, "total": self._total, "left_s": round(left, 1)}
                write_json(self._root / FILE, value)
        if now - self._told >= _EVERY_S:
            self._told = now
            log.info("%s: %d of %d images, about %.0f s left", self._what, self._done, self._total, left)


def read_progress(root: Path) -> dict[str, Any] | None:
    """What is done now, how much of how much, and the seconds left; None before anything is."""
    return read_object(root / FILE) or None

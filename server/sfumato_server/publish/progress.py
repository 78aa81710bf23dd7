"""How far pooling and publishing are, as lines of the coordinator's log: at most one in ten seconds."""

from __future__ import annotations

import logging
import time

_EVERY_S = 10.0

log = logging.getLogger(__name__)


class LoggedProgress:
    """Called with how many images are done since the last call; `total` is how many there are to do."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._begun = self._told = time.monotonic()

    def __call__(self, images: int) -> None:
        """So many more are done."""
        self._done += images
        now = time.monotonic()
        if now - self._told < _EVERY_S or not self._done:
            return
        self._told = now
        left = (now - self._begun) * max(self._total - self._done, 0) / self._done
        log.info("%s: %d of %d images, about %.0f s left", self._what, self._done, self._total, left)

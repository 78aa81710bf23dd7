"""Telling people how a study goes, from a thread of its own: what they see is new, whatever is waited for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sfumato_common.progress import ticking
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.status.live import write_page

log = logging.getLogger(__name__)
_PAGE_SECONDS = 5.0


@contextmanager
def watched(home: CoordinatorHome, watch: Callable[[], None]) -> Iterator[None]:
    """Call `watch` twice a second, and write the live page, while the body runs and once when it has ended.

    Starting, publishing and stopping take minutes, in which a page that only the rounds write would stand still. What
    goes wrong here is logged, and never stops a study.
    """
    written = 0.0

    def tell() -> None:
        nonlocal written
        _once(watch)
        if time.monotonic() - written > _PAGE_SECONDS:
            _write(home)
            written = time.monotonic()

    try:
        with ticking(tell, "watching"):
            yield
    finally:
        _write(home)


def _write(home: CoordinatorHome) -> None:
    _once(lambda: write_page(home.root, home.plan()))


def _once(tell: Callable[[], None]) -> None:
    try:
        tell()
    except Exception:
        log.exception("how the study goes was not shown; it goes on")

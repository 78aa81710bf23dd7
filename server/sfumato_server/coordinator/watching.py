"""Telling people how a study goes, from a thread of its own: what they see is new, whatever is waited for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.status.live import write_page

log = logging.getLogger(__name__)
_TICK_SECONDS, _PAGE_SECONDS = 0.5, 5.0


@contextmanager
def watched(home: CoordinatorHome, watch: Callable[[], None]) -> Iterator[None]:
    """Call `watch` twice a second, and write the live page, while the body runs and once when it has ended.

    Starting, publishing and stopping take minutes, in which a page that only the rounds write would stand still. What
    goes wrong here is logged, and never stops a study.
    """
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(home, watch, over), name="watching", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10.0)
        _once(watch)
        _once(lambda: write_page(home.root, home.plan()))


def _tell(home: CoordinatorHome, watch: Callable[[], None], over: threading.Event) -> None:
    written = 0.0
    while not over.wait(_TICK_SECONDS):
        _once(watch)
        if time.monotonic() - written > _PAGE_SECONDS:
            _once(lambda: write_page(home.root, home.plan()))
            written = time.monotonic()


def _once(tell: Callable[[], None]) -> None:
    try:
        tell()
    except Exception:
        log.exception("how the study goes was not shown; it goes on")

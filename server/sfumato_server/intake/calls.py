"""Calls in progress: one of a kind for each site, and none that stands still or crawls.

A site's newest call ends its older one of that kind: whoever resumes after a break is not kept out by the line that
broke, and whoever opens many has one. A call that is cut off loses nothing: bytes that arrived stay, and the site
resumes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# a message must come within so many seconds, and a stream bring so many bytes a second once it is so old
IDLE_S, LEAST_RATE, GRACE_S = 20.0, 16 * 1024, 30.0
_LOOK_S = 0.25
# kinds of calls that a site may have open at once
KINDS = 3


class Call:
    """One call: when it began, what it brought, and how it is ended."""

    def __init__(self, context: Any, now: float) -> None:
        self._context, self._began, self._last = context, now, now
        self._bytes, self._receiving = 0, True

    def brought(self, count: int, now: float) -> None:
        """So many bytes came just now."""
        self._last, self._bytes = now, self._bytes + count

    def complete(self) -> None:
        """Everything came: what follows is our own work, which nobody stalls."""
        self._receiving = False

    def is_stalled(self, now: float) -> bool:
        """Whether the sender stands still, or brings less than the least rate."""
        age = now - self._began
        slow = age > GRACE_S and self._bytes < LEAST_RATE * age
        return self._receiving and (now - self._last > IDLE_S or slow)

    def cut(self) -> None:
        """End it; its handler's next look at the stream raises."""
        self._context.cancel()


class Calls:
    """The calls of all sites, looked over by a thread of its own from `start` to `stop`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock, self._ended = clock, threading.Lock(), threading.Event()
        self._live: dict[tuple[str, str], Call] = {}

    def start(self) -> None:
        """Begin to look for stalled calls."""
        threading.Thread(target=self._watch, name="intake-calls", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    @contextmanager
    def hold(self, site: str, kind: str, context: Any) -> Iterator[Call]:
        """A call of `site` while it lasts; an older one of that kind is cut off."""
        call = Call(context, self._clock())
        with self._lock:
            older, self._live[site, kind] = self._live.get((site, kind)), call
        if older is not None:
            older.cut()
        try:
            yield call
        finally:
            with self._lock:
                if self._live.get((site, kind)) is call:
                    del self._live[site, kind]

    def messages(self, call: Call, stream: Iterator[Any]) -> Iterator[Any]:
        """The messages of a call's stream, each counted when it came; the call is complete when they end."""
        for message in stream:
            call.brought(message.ByteSize(), self._clock())
            yield message
        call.complete()

    def cut_stalled(self) -> None:
        """End every call whose sender stands still or crawls."""
        now = self._clock()
        with self._lock:
            stalled = [call for call in self._live.values() if call.is_stalled(now)]
        for call in stalled:
            call.cut()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self.cut_stalled()

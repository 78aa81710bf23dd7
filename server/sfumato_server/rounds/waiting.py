"""How long a release is waited for, and how often its sites are asked: those at work for hours, people for days.

A site whose stewards have its release says so only where its policy tells it; others look like work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set

from sfumato_common.protocol.messages import Reply
from sfumato_server.rounds.deadlines import Deadlines

_ASK_AGAIN_S, _LONGEST_PAUSE_S, _AT_ONCE_S = 1.0, 15.0, 10.0


class ReleaseClock:
    """The time of one release; it begins when this is made."""

    def __init__(self, deadlines: Deadlines, clock: Callable[[], float] = time.monotonic) -> None:
        self._deadlines, self._clock = deadlines, clock
        self._begun = self._changed = self._awake = clock()
        self._said: dict[str, str] = {}

    def note(self, replies: Mapping[str, Reply]) -> None:
        """Take note of what sites said."""
        said = {site: reply.status for site, reply in replies.items()}
        if self._said != {**self._said, **said}:
            self._said, self._changed = {**self._said, **said}, self._clock()

    def over(self, waiting: Set[str]) -> set[str]:
        """The sites among `waiting` that are waited for no longer."""
        gone = self._clock() - self._begun
        people = {site for site in waiting if self._said.get(site) == "review"}
        left = (people if gone < self._deadlines.review_s else set()) | (
            set(waiting) if gone < self._deadlines.work_s else set()
        )
        return set(waiting) - left

    def pause(self) -> float:
        """Seconds to the next question: one, and where all answered at once a tenth of how long nothing has changed.

        A site that works does so within a question, so that a longer pause would only keep it from its work.
        """
        now = self._clock()
        idle = now - self._awake < _AT_ONCE_S
        wait = min(_LONGEST_PAUSE_S, max(_ASK_AGAIN_S, (now - self._changed) / 10)) if idle else _ASK_AGAIN_S
        self._awake = now + wait
        return wait

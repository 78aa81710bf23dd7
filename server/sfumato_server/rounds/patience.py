"""For which sites an exchange waits as long as it may: one that stays silent costs that once, not every round.

A silent site is asked like all others, and its answer counts when it comes in the others' time and half of that again.
After its k-th silence it must answer 2^k times in a row so before it is waited for again, so that one which answers now
and then costs as many such waits as the logarithm of the exchanges.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Set

from sfumato_common.errors import BusyError, FederationError, NoRoomError
from sfumato_common.protocol.messages import Reply

# what may be gone by the next time: the intake was full, or away
_AGAIN, _TRIES = {FederationError.wire_code, BusyError.wire_code}, 3
_FULL = NoRoomError.wire_code


class Patience:
    """The silences of a study's sites; `silent` are those that left their last question unanswered."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self._silences: Counter[str] = Counter()
        self._owed: dict[str, int] = {}

    def waited_for(self, targets: Set[str], quorum: int) -> set[str]:
        """The sites among `targets` to wait for: those that were not silent, if they make up the quorum; else all."""
        prompt = {site for site in targets if not self._owed.get(site)}
        return prompt if len(prompt) >= max(quorum, 1) else set(targets)

    def note(self, targets: Set[str], answered: Set[str]) -> None:
        """An exchange with `targets` is over, and those of `answered` said something."""
        for site in targets - answered:
            self._silences[site] += 1
            self._owed[site] = 2 ** self._silences[site]
        for site in targets & answered:
            self._owed[site] = max(self._owed.get(site, 0) - 1, 0)
        self.silent = (self.silent - answered) | (targets - answered)


class Losses:
    """Sites whose answers are lost again and again: errors of Flower, replies that are none, or a full disk; silence is
    no answer.

    After three in a row a site is given up. One that has begun its release, or whose disk is full, has `away_s` too.
    """

    def __init__(self, away_s: float) -> None:
        self._away_s = away_s
        self._lost: dict[str, tuple[int, float]] = {}

    def beyond(self, replies: Mapping[str, Reply], begun: Set[str]) -> dict[str, Reply]:
        """Take note of an exchange's replies; the lost ones of sites that are given up."""
        now, given_up = time.monotonic(), {}
        for site, reply in replies.items():
            if reply.status in ("ok", "pending", "review"):
                self._lost.pop(site, None)
            elif reply.code == _FULL or (not reply.reference and reply.code != "silent"):
                times, since = self._lost.get(site, (0, now))
                self._lost[site] = (times + 1, since)
                patient = site in begun or reply.code == _FULL
                if times + 1 >= _TRIES and (not patient or now - since >= self._away_s):
                    given_up[site] = reply
        return given_up


def final_replies(replies: Mapping[str, Reply], tries: Counter[str]) -> dict[str, Reply]:
    """Replies of sites that refused or failed themselves; a silent one may still be at work.

    What failed on the way to the intake is tried again, `_TRIES` times in all; a full disk is a loss (`Losses`).
    """
    said = {site: reply for site, reply in replies.items() if reply.code not in ("", _FULL) and reply.reference}
    tries.update(said.keys())
    return {site: reply for site, reply in said.items() if reply.code not in _AGAIN or tries[site] >= _TRIES}

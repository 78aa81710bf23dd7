"""For which sites an exchange waits as long as it may: one that stays silent costs that once, not every round.

A silent site is asked like all others, and its answer counts when it comes in the others' time and half of that again.
After its k-th silence it must answer 2^k times in a row so before it is waited for again, so that one which answers now
and then costs as many such waits as the logarithm of the exchanges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set


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

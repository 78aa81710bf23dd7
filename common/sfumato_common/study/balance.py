"""The shares of labels that a published set is to have: a public draw among signed images, and no real count.

As many images of each label stay as the shares allow with the scarcest label whole. Which ones follows from the plan's
digest and the images' own names, so that anybody draws the same again. Labels of signed images are public by then.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sfumato_common.errors import ConfigError

if TYPE_CHECKING:
    from sfumato_common.study.plan import Plan

# (site, name, label) of a signed image
Signed = tuple[str, str, str]


class Balance:
    """Which signed images stay in the set; eight bytes an image while it is drawn."""

    def __init__(self, digest: str, last: Mapping[str, int]) -> None:
        self._digest, self._last = digest, last

    @classmethod
    def of(cls, plan: Plan, images: Iterable[Signed]) -> Balance:
        """The draw for `images`, all that could be published. Raises ConfigError where a label has none."""
        places: dict[str, array[int]] = {label: array("Q") for label in plan.labels}
        for site, name, label in images:
            if label in places:  # of another the set does not verify
                places[label].append(_place(plan.study_digest, site, name))
        if plan.balance is None:
            return cls(plan.study_digest, {label: 2**64 for label in plan.labels})
        if bare := [label for label in plan.balance if not places[label]]:
            raise ConfigError(f"no image has label '{bare[0]}', so that 'balance' leaves nothing; release more of it")
        whole = min(len(places[label]) / share for label, share in plan.balance.items())
        last = {}
        for label, share in plan.balance.items():
            stay = min(len(places[label]), max(1, math.floor(whole * share + 1e-9)))
            last[label] = sorted(places[label])[stay - 1]
        return cls(plan.study_digest, last)

    def stays(self, site: str, name: str, label: str) -> bool:
        """Whether that image is drawn."""
        return _place(self._digest, site, name) <= self._last.get(label, -1)


def check_balance(plan: Plan) -> None:
    """Raise ValueError unless a plan's `balance` gives every label a share, and they add up to 1."""
    if plan.balance is None:
        return
    if other := sorted(set(plan.balance) ^ set(plan.labels)):
        raise ValueError(f"'balance' gives every label a share, and no other: '{other[0]}' is wrong")
    if abs(sum(plan.balance.values()) - 1.0) > 1e-6:
        raise ValueError(f"the shares of 'balance' add up to {sum(plan.balance.values()):g}, not to 1")


def _place(digest: str, site: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{digest} {site} {name}".encode()).digest()[:8], "big")

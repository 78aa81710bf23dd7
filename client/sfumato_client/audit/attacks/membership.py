"""Membership attacks on a released set: who was in the cohort, and in which group (Jeon et al. 2022, section 4.3).

The attacker holds an image of a person and the released set, nothing else. Likeness is that of `nearest.py`: the
absolute inner product of fingerprints. Every figure comes with what it would be for one who knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_client.audit.attacks.intervals import Interval, area, bootstrap, share_interval
from sfumato_common.metrics.nearest import fingerprints, nearest_distances
from sfumato_common.types import ByteImages


@dataclass(frozen=True)
class RecordMembership:
    """Members told from outsiders by how near the released set comes to their image.

    `auc` with its bootstrap interval; `found_at` true positive rates at false positive rates (Carlini et al. 2022),
    with Clopper-Pearson intervals; `control` is the same attack's AUC between random halves of the members, who are
    all members: 0.5 but for chance.
    """

    auc: float
    interval: Interval
    found_at: dict[float, tuple[float, Interval]]
    control: float
    control_interval: Interval


@dataclass(frozen=True)
class GroupMembership:
    """Share of members whose own group's image is among the `top` images most like theirs; `chance` is top / images."""

    top: int
    share: float
    interval: Interval
    chance: float


def record_membership(
    members: ByteImages, outsiders: ByteImages, released: ByteImages, rng: np.random.Generator
) -> RecordMembership:
    """Attack of [N] members and [M] outsiders, one image a patient, by `released` [R]; all of one form.

    Raises ValueError when either side has fewer than two images.
    """
    if min(len(members), len(outsiders)) < 2:
        raise ValueError("a membership attack needs at least two members and two outsiders")
    inside, outside = (-nearest_distances(images, released) for images in (members, outsiders))
    halves = np.array_split(rng.permutation(inside), 2)
    found = {}
    for rate in (0.01, 0.001):
        limit = np.quantile(outside, 1.0 - rate, method="higher")
        hits = int((inside > limit).sum())
        found[rate] = hits / len(inside), share_interval(hits, len(inside))
    return RecordMembership(
        area(inside, outside),
        bootstrap(inside, outside, rng),
        found,
        area(halves[0], halves[1]),
        bootstrap(halves[0], halves[1], rng),
    )


def group_membership(
    members: ByteImages, groups: npt.NDArray[np.int64], released: ByteImages, top: int = 5
) -> GroupMembership:
    """Attack of [N] members, one image a patient; row i is in the group that made released image `groups[i]`."""
    # equal images must tie, whatever the last bits of a product are
    like = np.abs(fingerprints(members) @ fingerprints(released).T).round(5)
    own = like[np.arange(len(members)), groups]
    # ties count against the attacker's luck: half of them are ahead
    ahead = (like > own[:, None]).sum(axis=1) + 0.5 * ((like == own[:, None]).sum(axis=1) - 1)
    hits = int((ahead < top).sum())
    return GroupMembership(
        top, hits / len(members), share_interval(hits, len(members)), min(1.0, top / max(1, len(released)))
    )

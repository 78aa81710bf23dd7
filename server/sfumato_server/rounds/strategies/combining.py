"""One update out of those of all sites: their mean, or one that few dishonest sites cannot lead away.

All sites' updates are private already: whatever is done with them is post-processing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sfumato_common.errors import FederationError
from sfumato_common.generators.settings import ServerOptimiser
from sfumato_common.types import AnyArray

# one site's update, read when it is asked for: a mean has one at a time in memory
Update = Callable[[], Mapping[str, AnyArray]]


def combine_updates(settings: ServerOptimiser, updates: Sequence[Update], shares: AnyArray) -> dict[str, AnyArray]:
    """The joint update by weight, float64, of the sites' updates with `shares` [N], which add up to 1.

    See `ServerOptimiser`. Raises FederationError when a trimmed mean has nothing left.
    """
    if len(updates) < settings.fewest_replies:
        raise FederationError(
            f"a mean without the {settings.trimmed} largest and smallest needs {settings.fewest_replies} sites; "
            f"{len(updates)} answered"
        )
    if settings.combine == "trimmed-mean":
        read = [update() for update in updates]
        return {name: _trimmed_mean(_stack(read, name), shares, settings.trimmed) for name in read[0]}
    if settings.combine == "norm-bound":
        shares = shares * _factors(updates)
    return _sum(updates, shares)


def _sum(updates: Sequence[Update], shares: AnyArray) -> dict[str, AnyArray]:
    """Sum of the updates times `shares` [N], in their order."""
    total: dict[str, AnyArray] = {}
    for share, update in zip(shares, updates, strict=True):
        for name, value in update().items():
            part = share * value.astype(np.float64)
            total[name] = total[name] + part if name in total else part
    return total


def _stack(updates: Sequence[Mapping[str, AnyArray]], name: str) -> AnyArray:
    return np.stack([update[name] for update in updates]).astype(np.float64)


def _trimmed_mean(values: AnyArray, shares: AnyArray, trimmed: int) -> AnyArray:
    """Mean over the first axis of [N, ...] by `shares` [N], without each coordinate's `trimmed` ends.

    Each value that is kept lies between two honest ones when `trimmed` sites at most are dishonest (Yin et al. 2018),
    and so does their mean, by whatever shares.
    """
    order = np.argsort(values, axis=0, kind="stable")[trimmed : len(values) - trimmed]
    kept = shares[order]
    return np.asarray((kept * np.take_along_axis(values, order, axis=0)).sum(axis=0) / kept.sum(axis=0))


def _factors(updates: Sequence[Update]) -> AnyArray:
    """By how much [N] each update is shortened: to the median of their norms at most."""
    norms = np.sqrt(
        [sum(float((value.astype(np.float64) ** 2).sum()) for value in each().values()) for each in updates]
    )
    # the lower one of two: half of the sites do not move it
    median = np.sort(norms)[(len(norms) - 1) // 2]
    return np.asarray(np.minimum(1.0, median / np.maximum(norms, np.finfo(np.float64).tiny)))

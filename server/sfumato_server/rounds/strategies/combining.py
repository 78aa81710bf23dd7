"""One update out of those of all sites: their mean, or one that few dishonest sites cannot lead away.

All sites' updates are private already: whatever is done with them is post-processing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sfumato_common.errors import FederationError
from sfumato_common.generators.settings import ServerOptimiser
from sfumato_common.generators.update import Changes
from sfumato_common.types import AnyArray

# one site's update, read when it is asked for
Update = Callable[[], Changes]
# how many values, of all sites together, are combined at once
_VALUES = 2**20


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
        return _by_blocks(updates, lambda values: _trimmed_mean(values, shares, settings.trimmed))
    if settings.combine == "norm-bound":
        shares = shares * _factors(updates)
    return _by_blocks(updates, lambda values: np.tensordot(shares, values, axes=1))


def _by_blocks(updates: Sequence[Update], combine: Callable[[AnyArray], AnyArray]) -> dict[str, AnyArray]:
    """`combine` of all sites' values [N, M], float64, so many coordinates M at a time that memory does not grow with N.

    It treats every coordinate alike.
    """
    joint, most = {}, max(1, _VALUES // len(updates))
    for name, value in updates[0]().items():
        ends = [(first, min(first + most, value.size)) for first in range(0, max(1, value.size), most)]
        blocks = [
            combine(np.stack([update().part(name, *end) for update in updates]).astype(np.float64)) for end in ends
        ]
        joint[name] = np.concatenate(blocks).reshape(value.shape)
    return joint


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

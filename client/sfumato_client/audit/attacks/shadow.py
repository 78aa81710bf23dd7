"""Shadow attack on a one-shot release (LiRA; Carlini et al. 2022): whose contribution stands behind these sums?

The attacker knows a pool of people, half of whom or so are in the cohort, and how the release is computed, noise
included. It refits the release hundreds of times on cohorts drawn from the pool. A person's statistic is the release's
part along what the person moves it by; its distribution over shadow cohorts with and without the person is normal, and
the score is the logarithm of the two densities' ratio at the real release.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sfumato_client.audit.attacks.base import Indices

Float64 = npt.NDArray[np.float64]
# the released numbers [D] of a cohort: members of the pool by their numbers
Release = Callable[[Indices], Float64]
_FEWEST = 8  # shadow cohorts with a person, and without


def shadow_scores(
    release: Release, clean: Release, released: Float64, people: int, cohort: int, rng: np.random.Generator, fits: int
) -> Float64:
    """Scores [P] of a pool of `people`, of whom `cohort` are behind `released` [D]; needs `fits` refits and P more.

    `release` is what was released, noise and all; `clean` the same without noise, by which a person's direction is
    known. Raises ValueError where so few shadow cohorts have, or lack, a person that its distribution is unknown.
    """
    chosen = np.stack([_chosen(people, cohort, rng) for _ in range(fits)])
    if min(chosen.sum(axis=0).min(), (~chosen).sum(axis=0).min()) < _FEWEST:
        raise ValueError(f"a person needs at least {_FEWEST} shadow cohorts with it, and as many without: fit more")
    shadows = np.stack([release(np.flatnonzero(row)) for row in chosen])  # [F, D]
    everybody = np.arange(people)
    whole = clean(everybody)
    moved = np.stack([whole - clean(np.delete(everybody, person)) for person in everybody])  # [P, D]
    moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    statistics, observed = shadows @ moved.T, moved @ released  # [F, P], [P]
    mean = [_mean(statistics, side) for side in (chosen, ~chosen)]
    deviation = [np.sqrt(_mean((statistics - m) ** 2, side)) for m, side in zip(mean, (chosen, ~chosen), strict=True)]
    # one deviation for both: of a few dozen shadows two are too unsure, and would bend the ratio (Carlini et al.)
    spread = np.maximum((deviation[0] + deviation[1]) / 2.0, 1e-12)
    return np.asarray(((observed - mean[1]) ** 2 - (observed - mean[0]) ** 2) / (2.0 * spread**2))


def _chosen(people: int, cohort: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    row = np.zeros(people, np.bool_)
    row[rng.permutation(people)[:cohort]] = True
    return row


def _mean(statistics: Float64, side: npt.NDArray[np.bool_]) -> Float64:
    """Means [P] of statistics [F, P] over the shadows of one side [F, P]."""
    return np.asarray((statistics * side).sum(axis=0) / side.sum(axis=0))

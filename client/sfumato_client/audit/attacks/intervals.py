"""Intervals of an attack's figures, and what samples of a size could tell from chance; the unit is the patient.

All are two-sided at 95 %. A bootstrap alone is too narrow for a dozen of patients, and has no width at all where an
attack tells everybody: the interval of an AUC is therefore never narrower than Newcombe's (2006, method 5) either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from scipy import stats

from sfumato_common.metrics.nearest import Floats
from sfumato_common.metrics.ranks import mann_whitney, percentile_interval

Interval = tuple[float, float]
CONFIDENCE = 0.95
_DRAWS = 400
# a difference is worth looking for where it is found in 8 of 10 cases
_POWER = 0.8
# sets of strangers of which somebody stands out; the distance of a Gumbel distribution's quartiles in its scale
_FALSE_SETS, _GUMBEL_QUARTILES = 0.01, 1.5725
_ENOUGH = 12  # scores whose quartiles say something of a tail


def share_interval(hits: int, of: int) -> Interval:
    """Clopper and Pearson's (1934) exact 95 % interval of a share of `hits` in `of`."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low = float(stats.beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1.0 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def area(above: Floats, below: Floats) -> float:
    """Probability that one of `above` is larger than one of `below`, ties half (Mann and Whitney 1947)."""
    return mann_whitney(above, below)


def area_interval(above: Floats, below: Floats, rng: np.random.Generator) -> Interval:
    """95 % interval of `area`: what a bootstrap over patients and Newcombe's method 5 cover together."""
    drawn = bootstrap(above, below, rng)
    found = area(above, below)
    low, high = newcombe(found, len(above), len(below))
    return min(drawn[0], low), max(drawn[1], high)


def bootstrap(above: Floats, below: Floats, rng: np.random.Generator) -> Interval:
    """Percentile interval of `area` over samples of patients, drawn with replacement on both sides."""
    drawn = (
        area(above[rng.integers(0, len(above), len(above))], below[rng.integers(0, len(below), len(below))])
        for _ in range(_DRAWS)
    )
    return percentile_interval(drawn, CONFIDENCE)


def newcombe(found: float, above: int, below: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of an AUC by Newcombe's (2006, part 2) method 5: by score, with Hanley and McNeil's variance."""
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)

    def far(true: float) -> float:
        return abs(found - true) - z * _deviation(true, above, below)

    low = 0.0 if found <= 0.0 else _root(far, 0.0, found)
    high = 1.0 if found >= 1.0 else _root(lambda gap: far(1.0 - gap), 0.0, 1.0 - found)
    return low, 1.0 if found >= 1.0 else 1.0 - high


def least_area(above: int, below: int) -> float:
    """The smallest true AUC whose interval lies above 0.5 in 8 of 10 samples of these sizes."""
    z, needed = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0), NormalDist().inv_cdf(_POWER)
    chance = 0.5 + z * _deviation(0.5, above, below)
    if chance >= 1.0:
        return 1.0
    return _root(lambda true: chance + needed * _deviation(true, above, below) - true, chance, 1.0)


def least_share(hit_rate: float, above: int, below: int) -> float:
    """The smallest true positive rate that is told from a false positive rate `hit_rate` in 8 of 10 samples.

    What chance gives is beta-binomial: the threshold is itself an order statistic of the `below` holdout patients.
    """
    limit = hits_by_chance(hit_rate, above, below, CONFIDENCE)
    if limit >= above:
        return 1.0
    # more than `limit` of `above` hits in 8 of 10 cases
    return float(stats.beta.ppf(_POWER, limit + 1, above - limit))


def beyond(rate: float, below: int) -> int:
    """How many of `below` holdout scores reach the threshold of a false positive rate: one at least."""
    return max(1, int(rate * (below + 1)))


def hits_by_chance(rate: float, above: int, below: int, confidence: float) -> int:
    """How many of `above` exchangeable scores exceed that threshold at most, with probability `confidence`."""
    reach = beyond(rate, below)
    return int(stats.betabinom(above, reach, below + 1 - reach).ppf(confidence))


def beyond_tail(above: Floats, below: Floats) -> int:
    """How many of `above` no tail explains that goes on as an upper quarter does; none of `below` is higher.

    The tail is exponential, through median and quartiles: of both sides together, which a few copies do not move, and,
    where they are enough, of `below` alone, which no copy moves; what either finds counts. Where both sides are alike
    and no tail is heavier, somebody stands out in a set in a hundred at most (`tests/client/test_attacks.py`).
    """
    every = np.concatenate([above, below])
    limits = [_tail(every, len(every), 3.0)]
    if len(below) >= _ENOUGH:
        limits.append(_tail(below, len(every), 8.0))
    return int((above > max(min(limits), float(below.max()))).sum())


def _tail(scores: Floats, people: int, unsure: float) -> float:
    """What one of `people` scores exceeds in half of _FALSE_SETS sets; the fewer the scores, the surer the limit."""
    low, middle, high = np.quantile(scores.astype(np.float64), [0.25, 0.5, 0.75])
    # the spread of the upper quarter; that of the middle half where it is larger, as that of a Gumbel distribution
    scale = max((high - middle) / math.log(2.0), (high - low) / _GUMBEL_QUARTILES, 1e-6)
    reach = math.log(0.25 * people / (_FALSE_SETS / 2.0)) * (1.0 + unsure / math.sqrt(len(scores)))
    return float(high + scale * reach)


def _deviation(true: float, above: int, below: int) -> float:
    """Standard deviation of an AUC by Hanley and McNeil (1982), with Newcombe's N* = (m + n) / 2 - 1 for both sides."""
    others = (above + below) / 2.0 - 1.0
    spread = 1.0 + others * ((1.0 - true) / (2.0 - true) + true / (1.0 + true))
    return math.sqrt(true * (1.0 - true) * spread / (above * below))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that is positive at `low` and not at `high` changes its sign."""
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2.0

"""What an attacker can reach at most, from delta as a function of epsilon (Wasserman and Zhou 2010; Dong et al. 2022).

A mechanism with delta(e) at every e lets no test for one patient, whatever the attacker knows of the others, pass

    TPR <= min over e of  min( e^e FPR + delta(e),  1 - e^-e (1 - delta(e) - FPR) ).

The area under that curve is the ceiling of an attack's AUC. Two patients who come or go together are told by the curve
applied to itself (Dong, Roth and Su 2022, theorem 2.14). Computed from a grid of e: fewer values only raise a ceiling.
All is under add/remove adjacency, for a patient of the cohort that pays more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sfumato_common.accounting.accountant import count_mechanisms
from sfumato_common.accounting.events import Event, Mechanism
from sfumato_common.accounting.pld import composition, hopeless

DELTAS = (1e-4, 1e-5, 1e-6, 1e-8)
FALSE_POSITIVE_RATES = (0.001, 0.01, 0.1)
_STEPS = 600
_LEAST_DELTAS = (1e-13, 1e-11, 1e-9)  # where the grid ends: the least that the loss distributions still have
_Floats = npt.NDArray[np.float64]
_Tally = tuple[tuple[Mechanism, int], ...]


@dataclass(frozen=True)
class Reach:
    """Ceilings for one patient, and epsilons at the smallest delta asked for.

    `mu`: one Gaussian release with this parameter has, at every epsilon from 0 to the plan's own, at least the delta of
    the whole composition; beyond that epsilon, where deltas are below the plan's, nothing is said. `epsilon_at` is by
    delta, `tpr` by false-positive rate. `pair` is epsilon at the plan's delta where two patients come or go together.
    """

    mu: float
    epsilon_at: Mapping[float, float]
    auc: float
    tpr: Mapping[float, float]
    pair: float


class Profile(Protocol):
    """Delta at epsilons, of one cohort's composition; see dp-accounting's `PrivacyLossDistribution`."""

    def get_delta_for_epsilon(self, epsilon: Any) -> Any:
        """Delta at each."""

    def get_epsilon_for_delta(self, delta: float) -> float:
        """The least epsilon at `delta`."""


def reach(train: Iterable[Event], holdout: Iterable[Event], delta: float) -> Reach:
    """What the compositions of both cohorts' events let an attacker reach; infinite or 1 where one is `hopeless`."""
    train_tally, holdout_tally = (
        tuple(sorted(count_mechanisms(events).items(), key=repr)) for events in (train, holdout)
    )
    return _reach(train_tally, holdout_tally, delta)


# both parts of a release state it, and a coordinator holds every package against it
@lru_cache(maxsize=8)
def _reach(train: _Tally, holdout: _Tally, delta: float) -> Reach:
    if any(hopeless(event) for event, _ in (*train, *holdout)):
        rates = dict.fromkeys(FALSE_POSITIVE_RATES, 1.0)
        return Reach(math.inf, dict.fromkeys(DELTAS, math.inf), 1.0, rates, math.inf)
    return reach_of([composition(tally, "add-remove") for tally in (train, holdout) if tally], delta)


def reach_of(profiles: Sequence[Profile], delta: float) -> Reach:
    """The same from what was composed; of the larger delta wherever two differ."""

    def epsilon(at: float) -> float:
        return max([0.0, *(found.get_epsilon_for_delta(at) for found in profiles)])

    own = epsilon(delta)
    last = max(found for found in (own, *map(epsilon, _LEAST_DELTAS)) if math.isfinite(found))
    # the plan's own epsilon is a point of the grid: mu is taken up to it
    grid = np.union1d(np.linspace(0.0, own, _STEPS // 2), np.linspace(own, last, _STEPS // 2))
    deltas = np.max([np.zeros(len(grid)), *(found.get_delta_for_epsilon(grid) for found in profiles)], axis=0)
    until = grid <= own
    rates = np.array(FALSE_POSITIVE_RATES)
    return Reach(
        max(_gaussian_mu(e, d) for e, d in zip(grid[until], deltas[until], strict=True)),
        {at: epsilon(at) for at in DELTAS},
        auc_ceiling(grid, deltas),
        dict(zip(FALSE_POSITIVE_RATES, tpr_ceiling(rates, grid, deltas).tolist(), strict=True)),
        pair_epsilon(grid, deltas, delta),
    )


def tpr_ceiling(rate: _Floats, epsilons: _Floats, deltas: _Floats) -> _Floats:
    """The largest true-positive rate [R] at false-positive rates [R], from deltas [E] at epsilons [E]."""
    raised = np.exp(epsilons) * rate[:, None] + deltas
    mirrored = 1.0 - np.exp(-epsilons) * (1.0 - deltas - rate[:, None])
    found: _Floats = np.minimum(np.minimum(raised, mirrored).min(axis=1), 1.0)
    return found


def auc_ceiling(epsilons: _Floats, deltas: _Floats) -> float:
    """The area under the curve of ceilings; a right-hand sum, which is no smaller, as the curve rises."""
    rates = np.concatenate([[0.0], np.logspace(-8, 0, 4000)])
    area = float(np.diff(rates) @ tpr_ceiling(rates[1:], epsilons, deltas))
    return min(1.0, area)


def pair_epsilon(epsilons: _Floats, deltas: _Floats, delta: float) -> float:
    """Epsilon at `delta` for two patients together: the curve of ceilings, applied to itself, as one more curve.

    Rates between two of the grid count with the larger one's ceiling; infinite where the grid's end says nothing.
    """
    rates = np.logspace(-26, 0, 4000)
    twice = tpr_ceiling(tpr_ceiling(rates, epsilons, deltas), epsilons, deltas)
    if twice[0] > delta:
        return math.inf
    left = twice[1:] - delta
    return float(np.log(left[left > 0] / rates[:-1][left > 0]).max(initial=0.0))


def _gaussian_mu(epsilon: float, delta: float) -> float:
    """The parameter at which one Gaussian release has `delta` at `epsilon` (Balle and Wang 2018, theorem 8)."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    if delta <= 0.0:
        return 0.0

    def beyond(mu: float) -> float:
        return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon) * ndtr(-mu / 2 - epsilon / mu)) - delta

    return float(brentq(beyond, 1e-9, 100.0, xtol=1e-10)) if beyond(100.0) > 0.0 else math.inf

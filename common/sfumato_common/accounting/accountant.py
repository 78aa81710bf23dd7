"""Epsilon of events by privacy-loss distributions (Koskela et al. 2020; Google's dp-accounting), and its forecast.

The adjacency that budgets are held to is add/remove of one patient; replace-one and a cross-check by Renyi divergences
are computed only where somebody reads them. `Declared` events carry no epsilon and are listed beside it, never inside.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never

from sfumato_common.accounting.events import (
    AboveThreshold,
    Declared,
    Event,
    ExponentialMechanism,
    GaussianRelease,
    KAverageGaussian,
    LaplaceRelease,
    LocalGaussian,
    LocalLaplace,
    Mechanism,
    RandomisedResponse,
    SampledGaussian,
    SummedGaussian,
    Unprotected,
    check_event,
)
from sfumato_common.accounting.kept import computed_once
from sfumato_common.accounting.pld import GRID, Adjacency, Pure, composition, hopeless
from sfumato_common.accounting.rdp import epsilon_rdp
from sfumato_common.errors import LedgerError

_AGREEMENT = 1.001  # a bound that the exact figure passes by more than rounding is not a bound


def epsilon_text(value: float | None, digits: int = 3) -> str:
    """An epsilon for people: 'infinite', also for the null that stands for it in JSON, or that many decimals."""
    return "infinite" if value is None or math.isinf(value) else f"{value:.{digits}f}"


def json_epsilon(value: float) -> float | None:
    """An epsilon for a JSON file, which knows no infinity: null stands for it."""
    return None if math.isinf(value) else value


def epsilon(events: Iterable[Event], delta: float, adjacency: Adjacency = "add-remove") -> float:
    """Smallest epsilon at `delta` for the composition of `events`, in any order; 0 for none. Slow (~0.5 s).

    Infinite when one event alone is `hopeless`, as everything is that left unprotected. Raises TypeError for an unknown
    event, LedgerError for one whose parameters mean nothing.
    """
    tally = count_mechanisms(events)
    if any(hopeless(event) for event in tally):
        return math.inf
    if not tally:
        return 0.0
    question = tuple(sorted(tally.items(), key=repr))
    return computed_once(question, delta, adjacency, lambda: _epsilon(question, delta, adjacency))


# the round loop and a site's restarts ask for the same sums again and again
@lru_cache(maxsize=256)
def _epsilon(tally: tuple[tuple[Mechanism, int], ...], delta: float, adjacency: Adjacency) -> float:
    return float(composition(tally, adjacency).get_epsilon_for_delta(delta))


@dataclass(frozen=True)
class Cost:
    """Epsilons of one cohort's events at one delta: the figure, its cross-check by Renyi divergences, and replace-one.

    `add_remove` and `replace_one` are by loss distributions; `add_remove_rdp` is a looser bound on the first.
    """

    add_remove: float
    add_remove_rdp: float
    replace_one: float


def cost(events: Iterable[Event], delta: float) -> Cost:
    """Both adjacencies and the cross-check, for printing. Raises LedgerError when the two accountants contradict."""
    kept = list(events)
    exact = epsilon(kept, delta)
    if math.isinf(exact):
        return Cost(exact, exact, exact)
    tally = count_mechanisms(kept)
    bound = epsilon_rdp(tally, delta)
    rounded_up = GRID * sum(times for event, times in tally.items() if isinstance(event, Pure))
    if not exact <= bound * _AGREEMENT + rounded_up:
        raise LedgerError(
            f"the accountants contradict each other (epsilon {exact:.6g} by loss distributions, at most {bound:.6g} by "
            "Renyi divergences): trust neither, and report the plan to the maintainers"
        )
    return Cost(exact, bound, epsilon(kept, delta, "replace-one"))


@dataclass(frozen=True)
class CohortCosts:
    """What train, holdout and any one patient pay at one delta; see `cohort_costs`."""

    train: Cost
    holdout: Cost
    patient: Cost


def cohort_costs(train: Iterable[Event], holdout: Iterable[Event], delta: float) -> CohortCosts:
    """Costs of both cohorts, and of a patient wherever the patient is.

    A patient is in one cohort, so adding or removing one costs the larger. Replacing one may also take a patient from
    one cohort and bring another into the other: removing here and adding there, which compose.
    """
    kept, others = list(train), list(holdout)
    first, second = cost(kept, delta), cost(others, delta)
    across = epsilon([*kept, *others], delta)
    patient = Cost(
        max(first.add_remove, second.add_remove),
        max(first.add_remove_rdp, second.add_remove_rdp),
        max(first.replace_one, second.replace_one, across),
    )
    return CohortCosts(first, second, patient)


def count_mechanisms(events: Iterable[Event]) -> Counter[Mechanism]:
    """Equal mechanisms counted together (sampled ones as single steps), so that composition is one power each."""
    tally: Counter[Mechanism] = Counter()
    for event in events:
        if isinstance(event, Declared):
            continue
        if not isinstance(event, Mechanism):
            raise TypeError(f"unknown event {type(event).__name__}: refused, never approximated")
        check_event(event)
        if isinstance(event, SampledGaussian):
            tally[SampledGaussian(event.noise_multiplier, event.sampling_rate, 1)] += event.steps
        else:
            tally[event] += 1
    return tally


def expand_tally(tally: Counter[Mechanism]) -> list[Event]:
    """A tally as events again: sampled mechanisms with their steps added up, one-shot ones repeated."""
    events: list[Event] = []
    for event, times in tally.items():
        match event:
            case SampledGaussian(noise_multiplier=sigma, sampling_rate=rate):
                events.append(SampledGaussian(sigma, rate, times))
            case (
                GaussianRelease()
                | SummedGaussian()
                | LaplaceRelease()
                | RandomisedResponse()
                | KAverageGaussian()
                | LocalLaplace()
                | LocalGaussian()
                | ExponentialMechanism()
                | AboveThreshold()
                | Unprotected()
            ):
                events += [event] * times
            case _:
                assert_never(event)
    return events

"""Epsilon of events by privacy-loss distributions (Koskela et al. 2020; Google's dp-accounting), and its forecast.

Adjacency is add/remove of one patient. `Declared` events carry no epsilon and are listed beside it, never inside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sfumato_common.config.plan import Plan
from sfumato_common.privacy.events import Declared, Event, GaussianRelease, SampledGaussian, study_events

SMALLEST_NOISE = 0.2  # one Gaussian release with it costs epsilon 33 at delta 1e-5


def epsilon(events: Iterable[Event], delta: float) -> float:
    """Smallest epsilon at `delta` for the composition of `events`, add/remove adjacency; 0 for none. Slow (~0.3 s).

    Infinite when any noise multiplier is below `SMALLEST_NOISE`: such an event costs more than any sensible budget, and
    its loss distribution more memory than a site has.
    """
    tally = grouped(events)
    if any(event.noise_multiplier < SMALLEST_NOISE for event in tally):
        return math.inf
    return _composed(tuple(sorted(tally.items(), key=repr)), delta) if tally else 0.0


# the round loop and a site's restarts ask for the same sums again and again
@lru_cache(maxsize=256)
def _composed(tally: tuple[tuple[GaussianRelease | SampledGaussian, int], ...], delta: float) -> float:
    # imported here: 1.5 s that processes which never account should not pay
    import dp_accounting
    from dp_accounting import pld

    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for event, times in tally:
        if isinstance(event, GaussianRelease):
            accountant.compose(dp_accounting.GaussianDpEvent(event.noise_multiplier), times)
        else:
            gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(event.sampling_rate, gaussian), times)
    return float(accountant.get_epsilon(delta))


def grouped(events: Iterable[Event]) -> Counter[GaussianRelease | SampledGaussian]:
    """Equal mechanisms counted together (sampled ones as single steps), so that composition is one power each."""
    tally: Counter[GaussianRelease | SampledGaussian] = Counter()
    for event in events:
        match event:
            case GaussianRelease():
                tally[event] += 1
            case SampledGaussian(noise_multiplier=sigma, sampling_rate=rate, steps=steps):
                tally[SampledGaussian(sigma, rate, 1)] += steps
            case Declared():
                continue
            case _:
                raise TypeError(f"unknown event {type(event).__name__}: refused, never approximated")
    return tally


@dataclass(frozen=True)
class StageForecast:
    """One line of the forecast: a stage's mechanism and the epsilon a training patient has paid when it ends."""

    stage: str
    rounds: int
    steps: int
    noise_multiplier: float
    sampling_rate: float
    epsilon_after: float


@dataclass(frozen=True)
class Forecast:
    """What a whole plan costs a patient at `delta`: per stage, in total, and for held-out patients."""

    delta: float
    stages: tuple[StageForecast, ...]
    epsilon_train: float
    epsilon_holdout: float


def forecast(plan: Plan, delta: float, spent: Iterable[Event] = (), spent_holdout: Iterable[Event] = ()) -> Forecast:
    """Cost of `plan` on top of the events already `spent`, at `delta`, stage by stage."""
    events = list(spent)
    lines: list[StageForecast] = []
    for stage in plan.stages:
        per_round = study_events(plan.model_copy(update={"stages": [stage]}), "train")
        events += per_round
        steps = sum(event.steps if isinstance(event, SampledGaussian) else 1 for event in per_round)
        rate = getattr(stage, "sampling_rate", 1.0)
        lines.append(
            StageForecast(stage.kind, stage.rounds, steps, stage.noise_multiplier, rate, epsilon(events, delta))
        )
    holdout = epsilon([*spent_holdout, *study_events(plan, "holdout")], delta)
    return Forecast(delta, tuple(lines), lines[-1].epsilon_after, holdout)

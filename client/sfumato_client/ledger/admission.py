"""Whether one more charge fits the site's budget and its plan's own, with the slow accounting done once a plan.

A composition that fits is remembered in the (chained) entry that it was computed for. A later charge whose total is a
part of it needs no accounting: leaving mechanisms out never costs a patient more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, assert_never

from sfumato_client.ledger.chain import Row
from sfumato_common.accounting.accountant import count_mechanisms, epsilon
from sfumato_common.accounting.events import (
    AboveThreshold,
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
    event_from_json,
    event_to_json,
)
from sfumato_common.errors import BudgetExceeded, PolicyRefusal
from sfumato_common.study.policy import Budget

Tally = Counter[Mechanism]


def admit(
    rows: Sequence[Row],
    others: Iterable[Event],
    own: Iterable[Event],
    ahead: Iterable[Event],
    budget: Budget,
    limit: Budget | None,
) -> dict[str, Any]:
    """Fields to store with a charge: the compositions that were found to fit, without those an earlier one covers.

    `others` is what other plans charged, `own` what this plan charged with the new charge, `ahead` all it will charge;
    `limit` is what the plan itself says that it costs at most. Raises BudgetExceeded when the composition of all passes
    `budget`, or that of this plan its `limit`.
    """
    planned = count_mechanisms(own) | count_mechanisms(ahead)
    wanted = count_mechanisms(others) + planned
    if any(isinstance(event, Unprotected) for event in wanted):
        raise BudgetExceeded(
            "a study without differential privacy was charged to these patients: their epsilon is infinite, and no "
            "further study fits any budget; nothing was touched"
        )
    found = _admit_tally(rows, "fits", wanted, budget, "a patient to", "the site's budget is")
    if limit is not None:
        whose = "what this plan takes from a patient to", "the plan itself promises at most"
        found |= _admit_tally(rows, "fits_plan", planned, limit, *whose)
    return found


def _admit_tally(
    rows: Sequence[Row], name: str, wanted: Tally, budget: Budget, whom: str, allowed: str
) -> dict[str, Any]:
    if any(wanted <= fitting for fitting in _fitting_tallies(rows, budget)):
        return {}
    total = epsilon(expand_tally(wanted), budget.delta)
    if not total <= budget.epsilon:  # written so that a NaN is refused
        raise BudgetExceeded(
            f"this would bring {whom} epsilon {total:.2f} at delta {budget.delta:g}; {allowed} {budget.epsilon:g}: "
            "nothing was touched, ask for a plan with more noise or fewer steps"
        )
    events = [event_to_json(event) for event in expand_tally(wanted)]
    return {name: {"delta": budget.delta, "epsilon": total, "events": events}}


def admit_unprotected(study: str, named: Collection[str]) -> None:
    """Raise PolicyRefusal unless policy lets `study`, by name, take what no budget covers."""
    if study not in named:
        raise PolicyRefusal(
            f"study '{study}' would let weights leave without differential privacy, and this site's policy does not "
            "name it in nonprivate_studies: nothing was touched"
        )


def expand_tally(tally: Tally) -> list[Event]:
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


def _fitting_tallies(rows: Sequence[Row], budget: Budget) -> Iterable[Tally]:
    """Compositions known to fit `budget`: computed at its very delta, and within its epsilon as it stands now."""
    for row in reversed(rows):
        value = row.value
        for fits in (value.get("fits"), value.get("fits_plan")):
            if fits and fits["delta"] == budget.delta and fits["epsilon"] <= budget.epsilon:
                yield count_mechanisms(event_from_json(event) for event in fits["events"])

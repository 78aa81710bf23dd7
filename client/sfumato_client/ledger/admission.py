"""Whether one more charge fits the budget, with the slow accounting done once a plan and not once a round.

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
    Unprotected,
    event_from_json,
    event_to_json,
)
from sfumato_common.errors import BudgetExceeded, PolicyRefusal
from sfumato_common.study.policy import Budget

Tally = Counter[Mechanism]


def admit(
    rows: Sequence[Row], others: Iterable[Event], own: Iterable[Event], ahead: Iterable[Event], budget: Budget
) -> dict[str, Any]:
    """Fields to store with a charge: the composition that was found to fit, or nothing when an earlier one covers it.

    `others` is what other plans charged, `own` what this plan charged with the new charge, `ahead` all it will charge.
    Raises BudgetExceeded when their composition passes `budget`.
    """
    wanted = count_mechanisms(others) + (count_mechanisms(own) | count_mechanisms(ahead))
    if any(wanted <= fitting for fitting in _fitting_tallies(rows, budget)):
        return {}
    if any(isinstance(event, Unprotected) for event in wanted):
        raise BudgetExceeded(
            "a study without differential privacy was charged to these patients: their epsilon is infinite, and no "
            "further study fits any budget; nothing was touched"
        )
    total = epsilon(expand_tally(wanted), budget.delta)
    if not total <= budget.epsilon:  # written so that a NaN is refused
        raise BudgetExceeded(
            f"this would bring a patient to epsilon {total:.2f} at delta {budget.delta:g}; the site's budget is "
            f"{budget.epsilon:g}: nothing was touched, ask for a plan with more noise or fewer steps"
        )
    events = [event_to_json(event) for event in expand_tally(wanted)]
    return {"fits": {"delta": budget.delta, "epsilon": total, "events": events}}


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
        fits = row.value.get("fits")
        if fits and fits["delta"] == budget.delta and fits["epsilon"] <= budget.epsilon:
            yield count_mechanisms(event_from_json(value) for value in fits["events"])

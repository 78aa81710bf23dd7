"""What a whole plan costs a patient, stage by stage and in total, on top of what was spent before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sfumato_common.accounting.accountant import CohortCosts, cohort_costs, epsilon, epsilon_text
from sfumato_common.accounting.events import Declared, Event, SampledGaussian, seen_with
from sfumato_common.study.costs import (
    NOISE_ALONE,
    formal_gate_events,
    latent_total,
    release_events,
    stage_events,
    study_events,
)
from sfumato_common.study.latents import Latent
from sfumato_common.study.plan import Plan


@dataclass(frozen=True)
class StageForecast:
    """One line of the forecast: a stage's mechanism and the epsilon a training patient has paid when it ends.

    The release, where its methods cost something, is a line of several mechanisms and has no one noise multiplier.
    """

    stage: str
    rounds: int
    steps: int
    noise_multiplier: float | None
    sampling_rate: float
    epsilon_after: float


@dataclass(frozen=True)
class Forecast:
    """What a whole plan costs a patient at `delta`: per stage, and in total for each cohort and for any patient.

    Where it is not `private`, its stages have noise multiplier 0 and every epsilon is infinite. `noised` then says what
    epsilon the noise of methods on latents would have by itself, as their papers state it: a figure, and no guarantee.
    Of a plan that sums securely it says what a patient pays against others than those that `totals` are about.
    """

    delta: float
    stages: tuple[StageForecast, ...]
    totals: CohortCosts
    private: bool = True
    noised: tuple[str, ...] = ()

    @property
    def epsilon_train(self) -> float:
        """Add/remove epsilon of a training patient."""
        return self.totals.train.add_remove

    @property
    def epsilon_holdout(self) -> float:
        """Add/remove epsilon of a holdout patient."""
        return self.totals.holdout.add_remove


def forecast(plan: Plan, delta: float, spent: Iterable[Event] = (), spent_holdout: Iterable[Event] = ()) -> Forecast:
    """Cost of `plan` on top of the events already `spent`, at `delta`, stage by stage, then what releasing adds."""
    events = list(spent)
    lines: list[StageForecast] = []
    for stage in plan.stages:
        per_round = stage_events(plan, stage)
        events += per_round
        steps = sum(event.steps if isinstance(event, SampledGaussian) else 1 for event in per_round)
        rate = stage.event.sampling_rate if isinstance(stage.event, SampledGaussian) else 1.0
        noise = stage.noise_multiplier if plan.private else 0.0
        lines.append(StageForecast(stage.kind, stage.rounds, steps, noise, rate, epsilon(events, delta)))
    released = [event for item in plan.release for event in release_events(plan, item)] + formal_gate_events(plan)
    if mechanisms := [event for event in released if not isinstance(event, Declared)]:
        events += mechanisms
        lines.append(StageForecast("release", 1, len(mechanisms), None, 1.0, epsilon(events, delta)))
    totals = cohort_costs(events, [*spent_holdout, *study_events(plan, "holdout")], delta)
    return Forecast(delta, tuple(lines), totals, plan.private, _noised(plan, delta))


def _noised(plan: Plan, delta: float) -> tuple[str, ...]:
    if plan.secure_sum is not None:
        return _summed(plan, delta)
    if plan.private:
        return ()
    found = []
    for item in plan.release:
        if isinstance(item, Latent):
            total, at = latent_total(item, len(plan.labels), delta)
            found.append(f"eps_total {total:.6g} at delta {at:g}: the noise of '{item.method}' alone; {NOISE_ALONE}")
    return tuple(found)


def _summed(plan: Plan, delta: float) -> tuple[str, ...]:
    """This plan's epsilons by who looks at its sums; what was spent before is not in them."""
    assert plan.secure_sum is not None
    events = [event for event in study_events(plan, "train") if not isinstance(event, Declared)]
    quorum, colluding = plan.federation.quorum, plan.secure_sum.colluding
    figures = {
        "the coordinator alone": [seen_with(event, quorum) for event in events],
        f"the coordinator with {colluding} of the other sites, which is what is charged": events,
        "the coordinator with all other sites, by this site's own noise alone": [
            seen_with(event, 1) for event in events
        ],
    }
    covers = f"delta {delta:g}, unit patient, add/remove, training patients, all of this plan"
    return tuple(
        f"secure sums: epsilon {epsilon_text(epsilon(seen, delta))} against {who} ({covers})"
        for who, seen in figures.items()
    )

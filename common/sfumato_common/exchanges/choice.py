"""The choice: which released model serves best, by noisy histograms of training patients' scores (metrics/choice.py).

It trains nothing and releases no model: an exchange, and no generator.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.generators.base import Exchange
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.replies import check_histograms, most_patients
from sfumato_common.generators.settings import OneShotStage, Positive, stage_of
from sfumato_common.generators.summed import Phase, Summed, as_they_are
from sfumato_common.metrics.clear import least_patients
from sfumato_common.types import Arrays, ArraySpec, Schema

HISTOGRAMS, WINNER = "histograms", "winner"


class ChoiceStage(OneShotStage):
    """Which released model serves best: scores of training patients under a classifier a model, as noisy histograms.

    Each of the plan's models gives `images` to train a classifier on; a trained model is chosen only when it is better
    than the spectral one by more than the noise. The `trimmed` highest and lowest sites of a figure do not count, so
    that as many dishonest ones can neither force nor forbid a choice. See metrics/choice.py.
    """

    kind: Literal["choice"]
    """Scores of training patients, which tell what model serves best; the last stage."""
    noise_multiplier: Positive
    """Noise over a sensitivity of 1 a model; left out where the plan has a budget."""
    bins: Annotated[int, Field(ge=4, le=64)] = 16
    """Cells of a histogram."""
    images: Annotated[int, Field(ge=50, le=20_000)] = 1000
    """Images of every model that train its classifier."""
    # left out of a plan's digest where it is not used: plans from before it keep theirs
    trimmed: Annotated[int, Field(ge=0, le=127)] = Field(default=0, exclude_if=lambda sites: sites == 0)
    """Highest and lowest sites that count in no figure."""

    @property
    def fewest_replies(self) -> int:
        """As many as leave one site's figure."""
        return 2 * self.trimmed + 1

    def check(self, plan: PublicPlan) -> None:
        """It comes last, has something to choose between, and is worth its cost."""
        kinds = [stage.kind for stage in plan.stages]
        if kinds[-1] != self.kind or plan.base != "spectral" or len(plan.candidates) < 2:
            raise ValueError("'choice' is the last stage, after 'spectral' and at least one more model")
        if not plan.private:
            raise ValueError("'choice' scores training patients: that says nothing of weights without privacy")


def without_figure(plan: PublicPlan, summed: tuple[int, int] | None = None) -> str:
    """Why the plan's choice can only say "no figure", whatever the sites hold; empty where it may say more.

    From public numbers alone: its noise, and the sites' nominal patients. `summed` says, where histograms leave as one
    sum, of how many sites at least, and among how many the noise is shared.
    """
    stage = stage_of(plan, ChoiceStage)
    deviation = stage.noise_multiplier * math.sqrt(len(plan.candidates))
    if summed is not None:
        return _without_sum(plan, stage, deviation, *summed)
    needed = least_patients(deviation, len(plan.labels), stage.bins)
    able = sum(terms.nominal_patients >= needed for terms in plan.sites.values())
    if able >= stage.fewest_replies:
        return ""
    return (
        f"at its noise multiplier {stage.noise_multiplier:g} a site needs {needed} nominal patients to show a figure, "
        f"and {able} of the {stage.fewest_replies} sites that it takes have them"
    )


def _without_sum(plan: PublicPlan, stage: ChoiceStage, deviation: float, sites: int, among: int) -> str:
    needed = least_patients(deviation * math.sqrt(sites / among), len(plan.labels), stage.bins)
    patients = sum(sorted(terms.nominal_patients for terms in plan.sites.values())[-sites:])
    if patients >= needed:
        return ""
    return (
        f"at its noise multiplier {stage.noise_multiplier:g} a sum of {sites} sites needs {needed} nominal patients to "
        f"show a figure, and they have {patients}"
    )


def sent(plan: PublicPlan) -> Schema:
    """The classifier of every candidate, arrays named `<kind>:<parameter>`."""
    from sfumato_common.metrics.choice import classifiers_schema

    return classifiers_schema(plan)


def returned(plan: PublicPlan) -> Schema:
    """Noisy counts [C, K, bins] of training patients by candidate, label and score."""
    shape = (len(plan.candidates), len(plan.labels), stage_of(plan, ChoiceStage).bins)
    return {HISTOGRAMS: ArraySpec("float32", shape)}


def check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    """Raise VerificationError for counts that the training patients of `site` cannot have given."""
    sigma = stage_of(plan, ChoiceStage).noise_multiplier * math.sqrt(len(plan.candidates))
    check_histograms(arrays[HISTOGRAMS], sigma, most_patients(plan, site))


def released(plan: PublicPlan) -> Schema:
    """The place of the chosen model among the candidates."""
    return {WINNER: ArraySpec("int64", (1,))}


def _multipliers(plan: PublicPlan) -> tuple[float, ...]:
    return (stage_of(plan, ChoiceStage).noise_multiplier,)


def _phases(plan: PublicPlan) -> tuple[Phase, ...]:
    shapes = {name: spec.shape for name, spec in returned(plan).items()}
    return (Phase(shapes, math.sqrt(len(plan.candidates)), *_multipliers(plan)),)


def _check_sum(plan: PublicPlan, noise_multiplier: float, patients: float, arrays: Arrays) -> None:
    check_histograms(arrays[HISTOGRAMS], noise_multiplier * math.sqrt(len(plan.candidates)), patients)


CHOICE = Exchange(
    kind="choice",
    settings=ChoiceStage,
    help="Which of the released models serves best, by noisy scores of training patients.",
    sent=sent,
    returned=returned,
    check_reply=check_reply,
    released=released,
    trainer="sfumato_client.training.choice:score_candidates",
    strategy="sfumato_server.rounds.strategies.choice:ChoiceStrategy",
    summed=Summed(
        multipliers=_multipliers,
        phases=_phases,
        read=as_they_are,
        check=_check_sum,
        summand="sfumato_client.training.choice:counts_of_sum",
    ),
)

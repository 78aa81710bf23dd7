"""What a plan costs: the events of its stages, its release and its figures, by cohort; for any accountant."""

from __future__ import annotations

import math
from typing import Literal, assert_never

from sfumato_common.accounting.accountant import cohort_costs, epsilon
from sfumato_common.accounting.events import (
    Cohort,
    Declared,
    Event,
    GaussianRelease,
    KAverageGaussian,
    LocalGaussian,
    Mechanism,
    RandomisedResponse,
    Unprotected,
    local_event,
)
from sfumato_common.study.certificate import StatedTraining, stated_costs
from sfumato_common.study.latents import Cadp, DpGlow, Latent
from sfumato_common.study.lineage import given_models, training_plan
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import AnyItem, DpKAverage, Grouped, Sampling
from sfumato_common.study.stages import Stage
from sfumato_common.study.summed import UTILITY, is_summed, summed_events
from sfumato_common.study.words import Part

# the sentence that every page about such a study carries
WITHOUT_PRIVACY: Literal["weights left without differential privacy"] = "weights left without differential privacy"

# what stands beside the epsilon of a mechanism whose images are decoded by a model without one
NOISE_ALONE = "heuristic, no guarantee: the model that decodes has none"

# the one bit that the gate says of the declared part of a release
GATE_VERDICT = Declared("gate verdict: the whole declared set was approved or refused", bits=1)

# what a steward's yes or no tells, where a site's policy asks one: of the declared part after a look at patients, of
# the formal one after a look at its images alone
REVIEW_WORDS: dict[Part, Declared] = {
    "formal": Declared("steward's word on the formal part, by its images and no patient's", bits=1),
    "declared": Declared("steward's word: the whole declared part was approved or refused", bits=1),
}


def stage_events(plan: Plan, stage: Stage) -> list[Event]:
    """What `stage` is charged as under `plan`, one event a round: without privacy, as `Unprotected`.

    A stage that leaves as a sum is charged once a phase, and one whose model is given not at all: an earlier plan was.
    """
    if stage.kind in given_models(plan):
        return []
    if is_summed(plan, stage.kind):
        return [*summed_events(plan, stage.kind)]
    return [stage.event if plan.private else Unprotected(stage.kind)] * stage.rounds


def stated_training(plan: Plan) -> StatedTraining:
    """What the earlier study cost a patient, whose models `plan` is given. Raises ConfigError where it is not there."""
    earlier = training_plan(plan)
    costs = cohort_costs(study_events(earlier, "train"), study_events(earlier, "holdout"), earlier.privacy.delta)
    return StatedTraining(plan_hash=earlier.study_digest, epsilon=stated_costs(costs), delta=earlier.privacy.delta)


def utility_event(plan: Plan) -> Event:
    """What the utility figure is charged as; the plan has one."""
    assert plan.utility is not None
    if is_summed(plan, UTILITY):
        return summed_events(plan, UTILITY)[0]
    return GaussianRelease(plan.utility.noise_multiplier) if plan.private else Unprotected("utility")


def declared_disclosures(plan: Plan) -> list[Declared]:
    """Everything data-dependent that no epsilon of `plan` covers, in order: of its release, and the gate's verdict."""
    made = [event for item in plan.release for event in release_events(plan, item) if isinstance(event, Declared)]
    return [*made, *([GATE_VERDICT] if "declared" in plan.parts else [])]


def formal_gate_events(plan: Plan) -> list[Event]:
    """What the private gate on the formal part is charged as to training patients; nothing where the plan has none."""
    return [GaussianRelease(plan.formal_gate.noise_multiplier)] if plan.formal_gate else []


def release_events(plan: Plan, item: AnyItem) -> list[Event]:
    """What releasing `item` is charged as to training patients, beside what its model cost.

    Nothing for DP sampling, which is post-processing. Methods on groups have no mechanism: their images are declared,
    with all their bits, as many as at the site with most: certificates of all parts then say the same, whichever was
    sealed before the other was charged. Noised latents of a plan without privacy are charged without end: what decodes
    them has no guarantee, whatever their own noise is (`latent_total`).
    """
    most = max((own.most for own in plan.release if (own.method, own.model) == (item.method, item.model)), default=0)
    label_bits = most * max(1, math.ceil(math.log2(len(plan.labels))))
    match item:
        case Grouped():
            pixels = plan.image.size**2 * plan.image.channels * plan.image.bits
            made = f"{item.guarantee_level} images made from groups of at least {item.k} patients of one cohort"
            return [Declared(f"{item.method}: {made}", most * pixels + label_bits)]
        case DpKAverage(noise_multiplier=sigma, k=k):
            return [KAverageGaussian(sigma, k)]
        case DpGlow() | Cadp():
            charged = local_event(item.epsilon, item.noise_multiplier) if plan.private else Unprotected(item.method)
            return [charged, *_label_events(plan, item, label_bits)]
        case Sampling():
            return []
        case _:
            assert_never(item)


def _label_events(plan: Plan, item: DpGlow | Cadp, bits: int) -> list[Event]:
    if isinstance(item, Cadp) and item.label_epsilon is not None:
        if not plan.private:
            return []  # covered by the one charge without end
        return [RandomisedResponse(len(plan.labels), item.label_epsilon)]
    if item.tells_labels:
        return [Declared(f"{item.method}: labels of records, taken as public", bits)]
    return []


def latent_total(item: Latent, labels: int, delta: float) -> tuple[float, float]:
    """Epsilon of all that one record gives, its latent and its label, and the delta that it holds at: 0 where pure.

    Of the noise alone: a training patient pays for the model too, and without privacy no sum of the two is finite.
    """
    label = item.label_epsilon if isinstance(item, Cadp) else None
    if item.epsilon is not None:
        return item.epsilon + (label or 0.0), 0.0
    assert item.noise_multiplier is not None, "the plan gives one of the two"
    answer: list[Mechanism] = [] if label is None else [RandomisedResponse(labels, label)]
    return epsilon([LocalGaussian(item.noise_multiplier), *answer], delta), delta


def study_events(plan: Plan, cohort: Cohort) -> list[Event]:
    """Every event the whole plan will charge to `cohort`, in order: one entry a round, then those of the release."""
    if cohort == "holdout":
        return [utility_event(plan)] if plan.utility else []
    trained = [event for stage in plan.stages for event in stage_events(plan, stage)]
    return [*trained, *release_total(plan)]


def release_total(plan: Plan) -> list[Event]:
    """What the whole release charges training patients: its items and the private gate."""
    released = [event for item in plan.release for event in release_events(plan, item)]
    return [*released, *formal_gate_events(plan)]

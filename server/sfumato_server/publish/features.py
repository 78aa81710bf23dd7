"""Vectors of a features stage as they are published: drawn from its released model, with the words of their card."""

from __future__ import annotations

import numpy as np

from sfumato_common.accounting.accountant import cohort_costs
from sfumato_common.errors import VerificationError
from sfumato_common.exchanges.features import MATRIX, OFFSET, FeaturesStage
from sfumato_common.generators.settings import stage_of
from sfumato_common.package.features import FILE, Features, FeaturesCard, read_features
from sfumato_common.study.certificate import round_up_epsilon
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays
from sfumato_server.intake.claims import slack


def has_features(plan: Plan) -> bool:
    """Whether the plan publishes vectors."""
    return any(isinstance(stage, FeaturesStage) for stage in plan.stages)


def features_card(plan: Plan) -> FeaturesCard:
    """The card that the plan's vectors have: everything in it follows from the plan."""
    worst = None
    if plan.private:
        costs = cohort_costs(study_events(plan, "train"), study_events(plan, "holdout"), plan.privacy.delta)
        worst = round_up_epsilon(costs.patient.add_remove)
    encoder = plan.encoders[stage_of(plan, FeaturesStage).encoder]
    sites = sorted(plan.sites) if plan.by_site else []
    return FeaturesCard.of(plan.study, plan.study_digest, worst, plan.privacy.delta, list(plan.labels), sites, encoder)


def draw_features(plan: Plan, model: Arrays, seed: int) -> Features:
    """As many vectors as the plan says, by the released shares, from the Gaussians of a features stage's `model`."""
    rng, stage = np.random.default_rng(seed), stage_of(plan, FeaturesStage)
    shares = np.maximum(model["features/shares"].astype(np.float64), 0.0)
    components = rng.choice(len(shares), stage.vectors, p=shares / shares.sum()).astype(np.int64)
    mean, factor = (model[f"features/{name}"].astype(np.float64) for name in ("mean", "factor"))
    vectors = rng.normal(size=(stage.vectors, mean.shape[1]))
    for component in np.unique(components):
        own = components == component
        vectors[own] = mean[component] + vectors[own] @ factor[component]  # a symmetric root
    classes = len(plan.labels)
    return Features(
        vectors.astype(np.float32),
        components % classes,
        components // classes if plan.by_site else None,
        np.asarray(model[MATRIX], dtype=np.float32),
        np.asarray(model[OFFSET], dtype=np.float32),
        features_card(plan),
    )


def check_features(plan: Plan, data: bytes) -> Features:
    """Raise VerificationError unless `data` is a file of as many vectors as the plan says, with the plan's own card."""
    found, own, stage = read_features(data), features_card(plan), stage_of(plan, FeaturesStage)
    # accountants' grids differ a little from version to version
    said, proved = found.card.epsilon, own.epsilon
    same = said == proved if said is None or proved is None else abs(said - proved) <= slack(proved)
    shape = stage.vectors, stage.dimensions
    if not same or found.card.model_copy(update={"epsilon": own.epsilon}) != own or found.vectors.shape != shape:
        raise VerificationError(f"{FILE} says something else of itself than the plan")
    return found

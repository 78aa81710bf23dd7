"""What travels in a class-mean stage: nothing to a site, one noised sum back, the means in the end."""

from __future__ import annotations

import math

import numpy as np
from sfumato_common.generators.class_mean.settings import ClassMeanStage

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.replies import check_counts, check_norms, most_patients
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.types import Arrays, ArraySpec, Schema

COUNT_WEIGHT = 0.1
MEANS = "class-mean/means"


def sent(plan: PublicPlan) -> Schema:
    """Nothing: sites work from the plan alone."""
    return {}


def returned(plan: PublicPlan) -> Schema:
    """Noised count and sum of pixels by class, [K, 1 + C S S]."""
    return {"sums": ArraySpec("float32", (len(plan.labels), 1 + plan.image.channels * plan.image.size**2))}


def check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    """Raise VerificationError for sums that patients of `site` cannot have given."""
    sums, sigma = arrays["sums"].astype(np.float64), stage_of(plan, ClassMeanStage).noise_multiplier
    counts = check_counts(sums[:, 0], COUNT_WEIGHT, sigma, most_patients(plan, site))
    check_norms(sums[:, 1:], math.sqrt(1.0 - COUNT_WEIGHT**2), counts, sigma)


def released(plan: PublicPlan) -> Schema:
    """The spectral model, which says how often a class occurs, and the means [K, C, S, S]."""
    form = plan.image
    return {**spectral(plan), MEANS: ArraySpec("float32", (len(plan.labels), form.channels, form.size, form.size))}

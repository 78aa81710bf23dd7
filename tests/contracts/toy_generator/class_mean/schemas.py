"""What travels in a class-mean stage: nothing to a site, one noised sum back, the means in the end."""

from __future__ import annotations

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.types import ArraySpec, Schema

MEANS = "class-mean/means"


def sent(plan: PublicPlan) -> Schema:
    """Nothing: sites work from the plan alone."""
    return {}


def returned(plan: PublicPlan) -> Schema:
    """Noised count and sum of pixels by class, [K, 1 + C S S]."""
    return {"sums": ArraySpec("float32", (len(plan.labels), 1 + plan.image.channels * plan.image.size**2))}


def released(plan: PublicPlan) -> Schema:
    """The spectral model, which says how often a class occurs, and the means [K, C, S, S]."""
    form = plan.image
    return {**spectral(plan), MEANS: ArraySpec("float32", (len(plan.labels), form.channels, form.size, form.size))}

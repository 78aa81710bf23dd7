"""What travels in an appearance stage: nothing to the sites, noised sums back, the fitted model in the end."""

from __future__ import annotations

from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.schemas import moments_returned
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.types import ArraySpec, Schema


def sent(plan: PublicPlan) -> Schema:
    """Nothing: sites work from the plan alone."""
    return {}


def returned(plan: PublicPlan) -> Schema:
    """The noised sums of one site (see `spectral.release.noised_moments`)."""
    return moments_returned(AppearanceLayout.of(plan))


def released(plan: PublicPlan) -> Schema:
    """The Gaussian of each component, and the spectral model where the plan has one before."""
    from sfumato_common.generators.components import component_count

    k, d = component_count(plan), AppearanceLayout.of(plan).features
    shapes: dict[str, tuple[int, ...]] = {"shares": (k,), "mean": (k, d), "factor": (k, d, d), "signal": (k, d, d)}
    own = {f"appearance/{name}": ArraySpec("float32", shape) for name, shape in shapes.items()}
    return {**(spectral(plan) if plan.base == "spectral" else {}), **own}

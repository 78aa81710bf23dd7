"""What travels in an appearance stage: nothing to the sites, noised sums back, the fitted model in the end."""

from __future__ import annotations

from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.schemas import gaussians, moments_returned
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.types import Schema


def sent(plan: PublicPlan) -> Schema:
    """Nothing: sites work from the plan alone."""
    return {}


def returned(plan: PublicPlan) -> Schema:
    """The noised sums of one site (see `spectral.release.noised_moments`)."""
    return moments_returned(AppearanceLayout.of(plan))


def released(plan: PublicPlan) -> Schema:
    """The Gaussian of each component, and the spectral model where the plan has one before."""
    from sfumato_common.generators.components import component_count

    own = gaussians("appearance", component_count(plan), AppearanceLayout.of(plan).features)
    return {**(spectral(plan) if plan.base == "spectral" else {}), **own}

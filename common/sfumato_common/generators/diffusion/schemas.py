"""What travels in a diffusion stage: first model, denoiser and adapter to a site, the adapter's change back."""

from __future__ import annotations

from sfumato_common.generators.diffusion.networks import ADAPTER, NETWORKS
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.schemas import base_schema, update_schema, weights_schema
from sfumato_common.types import Schema


def sent(plan: PublicPlan) -> Schema:
    """The model that the plan begins with, which whitens images, the frozen denoiser and the adapter."""
    return {**base_schema(plan), **weights_schema(plan, NETWORKS)}


def returned(plan: PublicPlan) -> Schema:
    """The change of the adapter's weights: nothing else was trained."""
    return update_schema(plan, {ADAPTER: NETWORKS[ADAPTER]})


def released(plan: PublicPlan) -> Schema:
    """What is sent."""
    return sent(plan)

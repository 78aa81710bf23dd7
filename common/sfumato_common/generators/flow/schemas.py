"""What travels in a flow stage: spectral model and flow to a site, the flow's change back."""

from __future__ import annotations

from sfumato_common.generators.flow.networks import flow
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.schemas import update_schema, weights_schema
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.types import Schema


def sent(plan: PublicPlan) -> Schema:
    """The spectral model, which whitens images, and the flow."""
    return {**spectral(plan), **weights_schema(plan, {"flow": flow})}


def returned(plan: PublicPlan) -> Schema:
    """The change of the flow's weights."""
    return update_schema(plan, {"flow": flow})


def released(plan: PublicPlan) -> Schema:
    """What is sent: the spectral model and the flow."""
    return sent(plan)

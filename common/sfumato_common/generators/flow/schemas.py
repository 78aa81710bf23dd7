"""What travels in a flow stage: the plan's first model and flow to a site, the flow's change back."""

from __future__ import annotations

from sfumato_common.generators.flow.networks import flow
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.schemas import base_schema, update_schema, weights_schema
from sfumato_common.types import Schema


def sent(plan: PublicPlan) -> Schema:
    """The model that the plan begins with, which whitens images, and the flow."""
    return {**base_schema(plan), **weights_schema(plan, {"flow": flow})}


def returned(plan: PublicPlan) -> Schema:
    """The change of the flow's weights."""
    return update_schema(plan, {"flow": flow})


def released(plan: PublicPlan) -> Schema:
    """What is sent: the first model and the flow."""
    return sent(plan)

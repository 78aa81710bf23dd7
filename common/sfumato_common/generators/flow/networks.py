"""The flow as a plan describes it; torch is loaded when one is built.

To add an architecture: one module in this folder, one branch here, and its name in settings.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of, white_form

if TYPE_CHECKING:
    from sfumato_common.generators.flow.flows import Flow


def flow(plan: PublicPlan) -> Flow:
    """The flow of the plan's stage, which is the identity when it is new."""
    from sfumato_common.generators.components import condition_width
    from sfumato_common.generators.flow.cinn import ConditionalINN
    from sfumato_common.generators.flow.glow import Glow
    from sfumato_common.generators.flow.multiscale import MultiscaleINN

    stage, form = stage_of(plan, FlowStage), white_form(plan)
    sizes = (form.channels, condition_width(plan), stage.levels, stage.steps_per_level, stage.hidden)
    if stage.architecture == "cinn":
        return ConditionalINN(*sizes, stage.coupling, size=form.size, dense=stage.dense)
    if stage.architecture == "multiscale-cinn":
        return MultiscaleINN(*sizes, stage.coupling, size=form.size, dense=stage.dense)
    return Glow(*sizes, stage.coupling)

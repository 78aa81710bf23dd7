"""The denoiser and its adapter as a plan describes them; torch is loaded when one is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.base import Build
from sfumato_common.generators.diffusion.settings import DiffusionStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of, white_form
from sfumato_common.types import Arrays

if TYPE_CHECKING:
    from sfumato_common.generators.diffusion.denoiser import AdaptedDenoiser, Adapter, Denoiser

DENOISER, ADAPTER = "denoiser", "adapter"


def denoiser(plan: PublicPlan) -> Denoiser:
    """The frozen network, which says zero when it is new."""
    from sfumato_common.generators.components import condition_width
    from sfumato_common.generators.diffusion.denoiser import Denoiser

    stage, form = stage_of(plan, DiffusionStage), white_form(plan)
    sizes = stage.patch, stage.width, stage.depth, stage.heads
    return Denoiser(form.channels, form.size, condition_width(plan), *sizes)


def adapter(plan: PublicPlan) -> Adapter:
    """What sites train, which changes nothing when it is new."""
    from sfumato_common.generators.components import condition_width
    from sfumato_common.generators.diffusion.denoiser import Adapter

    stage = stage_of(plan, DiffusionStage)
    return Adapter(white_form(plan).channels, condition_width(plan), stage.patch, stage.width, stage.depth, stage.rank)


NETWORKS: dict[str, Build] = {DENOISER: denoiser, ADAPTER: adapter}


def adapted_denoiser(plan: PublicPlan, arrays: Arrays) -> AdaptedDenoiser:
    """Both as one, from arrays, on the CPU. Raises VerificationError when they do not fit the plan."""
    from sfumato_common.generators.diffusion.denoiser import AdaptedDenoiser
    from sfumato_common.generators.weights import load_network

    return AdaptedDenoiser(load_network(DENOISER, denoiser, plan, arrays), load_network(ADAPTER, adapter, plan, arrays))

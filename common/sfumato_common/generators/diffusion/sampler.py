"""Images of a released diffusion model."""

from __future__ import annotations

from torch import Tensor

from sfumato_common.generators.base import Draw
from sfumato_common.generators.components import condition
from sfumato_common.generators.diffusion.denoising import denoise
from sfumato_common.generators.diffusion.networks import adapted_denoiser
from sfumato_common.generators.diffusion.settings import DiffusionStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.whitening import whitening_of
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.rows import by_chunks
from sfumato_common.types import Arrays


def sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    """Draws images of components from released arrays, on the CPU."""
    whitening, network, steps = whitening_of(plan, arrays), adapted_denoiser(plan, arrays), _steps(plan)

    def white(noise: Tensor, given: Tensor) -> Tensor:
        return denoise(network, noise, given, steps)

    def draw(y: Tensor, draws: Draws) -> Tensor:
        start, beside = draws.normal((len(y), *whitening.form.shape)), whitening.draw_noise(len(y), draws)
        drawn = by_chunks(white, start, condition(plan, y))
        return whitening.decode(drawn, y, *beside).nan_to_num(0.0).clamp(-1.0, 1.0)

    return draw


def _steps(plan: PublicPlan) -> int:
    return stage_of(plan, DiffusionStage).sampling_steps

"""DP sampling: synthetic images drawn from a released model, pure post-processing of its guarantee."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_common.generators.build import from_arrays, spectral_model
from sfumato_common.generators.components import condition
from sfumato_common.generators.flow.flows import Flow
from sfumato_common.generators.flow.matching import matched
from sfumato_common.generators.gan.w_space import draw_images
from sfumato_common.generators.spectral.whitening import SpectralModel
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, ByteImages, pixel_dtype, to_bytes

_BATCH = 256
_GENERATED_PIXELS = 2**22  # at once: a generator keeps dozens of maps of every image
Draw = Callable[[Tensor, Draws], Tensor]


def _spectral(plan: Plan, arrays: Arrays) -> Draw:
    return spectral_model(plan, arrays).sample


def _gan(plan: Plan, arrays: Arrays) -> Draw:
    spectral, generator = spectral_model(plan, arrays), from_arrays("generator", plan, arrays)

    def draw(y: Tensor, draws: Draws) -> Tensor:
        parts = torch.split(y, max(1, _GENERATED_PIXELS // plan.image.size**2))
        return torch.cat([draw_images(plan, generator, spectral, part, draws) for part in parts])

    return draw


def _flow(plan: Plan, arrays: Arrays) -> Draw:
    spectral, flow = spectral_model(plan, arrays), from_arrays("flow", plan, arrays)
    assert isinstance(flow, Flow)

    @cache
    def moved(components: tuple[int, ...]) -> SpectralModel:
        return matched(plan, spectral, flow, components)

    def draw(y: Tensor, draws: Draws) -> Tensor:
        white = flow.inverse(spectral.draw_latent(y, draws), condition(plan, y))
        return moved(tuple(sorted(set(y.tolist())))).decode(white, y).nan_to_num(0.0).clamp(-1.0, 1.0)

    return draw


SAMPLERS: dict[str, Callable[[Plan, Arrays], Draw]] = {
    "spectral": _spectral,
    "embedding": _gan,
    "gan": _gan,
    "flow": _flow,
}


def sample_images(plan: Plan, kind: str, arrays: Arrays, components: npt.NDArray[np.int64], draws: Draws) -> ByteImages:
    """Images uint8 (or uint16) [N, S, S] or [N, S, S, 3] for components [N] from the released model of stage `kind`.

    Models and `draws` are on the CPU, also where training uses an accelerator: what a seed draws must not depend on
    there being one.
    """
    bits = plan.image.bits
    if not len(components):
        return np.zeros((0, *plan.image.shape), dtype=pixel_dtype(bits))
    draw = SAMPLERS[kind](plan, arrays)
    with torch.no_grad():
        chunks = [to_bytes(draw(y, draws).numpy(), bits) for y in torch.split(torch.from_numpy(components), _BATCH)]
    return np.concatenate(chunks)

"""Flow samples with the released moments: what the noise of training displaced is put back (post-processing).

In whitened images a shift that all pixels share is a small weight, but moves the lowest frequency by as many deviations
as the image is wide, so noisy steps displace and stretch just what carries the anatomy. The released moments say where
it belongs. Only images are drawn so; the flow's density stays the one that was trained.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from sfumato_common.generators.components import condition
from sfumato_common.generators.flow.flows import Flow
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.whitening import SpectralModel
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.memory import by_chunks

# Samples a component. The latents behind them are known, so that only what the flow does to them is estimated, and a
# flow that does nothing changes nothing.
SAMPLES = 512
_BLOCK_PIXELS = 2**20  # of latents that are drawn at once, which is part of what the seed means
# What a flow that diverged draws counts no further than this, in deviations, and is stretched no more than tenfold.
_FARTHEST, _STRETCH = 8.0, 10.0


def match_moments(plan: PublicPlan, spectral: SpectralModel, flow: Flow, components: Iterable[int]) -> SpectralModel:
    """`spectral`, so adjusted that the flow's samples of `components` get the released mean and variances there.

    One mean and one deviation a feature of the band. Deterministic: the latents come from a fixed seed.
    """
    offset, scale = torch.zeros_like(spectral.mean), torch.ones_like(spectral.mean)
    with torch.no_grad():
        for component in set(components):
            before, after = _features(plan, spectral, flow, torch.tensor(component))
            scale[component] = (after.std(dim=0) / before.std(dim=0)).clamp(1.0 / _STRETCH, _STRETCH)
            offset[component] = after.mean(dim=0) - scale[component] * before.mean(dim=0)
    moved = copy.deepcopy(spectral)
    moved.factor = spectral.factor / scale[:, None, :]
    moved.inverse = spectral.inverse * scale[:, :, None]
    moved.mean = spectral.mean - torch.einsum("gij,gj->gi", moved.factor, offset)
    moved.log_scale = spectral.log_scale - scale.log().sum(dim=1)
    return moved


def _features(plan: PublicPlan, spectral: SpectralModel, flow: Flow, component: Tensor) -> tuple[Tensor, Tensor]:
    """Features [SAMPLES, d] of latents of one component, and of the whitened images that the flow makes of them."""
    draws, before, after = TorchDraws(torch.Generator().manual_seed(0)), [], []
    for y in torch.split(component.repeat(SAMPLES), max(1, _BLOCK_PIXELS // plan.image.size**2)):
        latent = spectral.draw_latent(y, draws)
        white = by_chunks(flow.inverse, latent, condition(plan, y))
        before.append(spectral.low(latent))
        after.append(spectral.low(white).nan_to_num(0.0).clamp(-_FARTHEST, _FARTHEST))
    return torch.cat(before), torch.cat(after)

"""Flow samples with the released moments: what the noise of training displaced is put back (post-processing).

In whitened images a shift that all pixels share is a small weight, but moves the lowest frequency by as many deviations
as the image is wide, so noisy steps displace and stretch just what carries the anatomy. The released moments say where
it belongs. Only images are drawn so; the flow's density stays the one that was trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor

from sfumato_common.generators.components import condition
from sfumato_common.generators.flow.flows import Flow
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.whitening import Whitening
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.rows import by_chunks

W = TypeVar("W", bound=Whitening)
# Samples a component. The latents behind them are known, so that only what the flow does to them is estimated, and a
# flow that does nothing changes nothing.
SAMPLES = 512
# Bytes of a chunk. More leaves a core's caches, and gains nothing; and where each site has a plane beside an image, so
# many rows at once would take memory that grows with the sites.
_CHUNK = 2**27
_BLOCK_PIXELS = 2**20  # of latents that are drawn at once, which is part of what the seed means
# What a flow that diverged draws counts no further than this, in deviations, and is stretched no more than tenfold.
_FARTHEST, _STRETCH = 8.0, 10.0


def match_moments(plan: PublicPlan, whitening: W, flow: Flow, components: Iterable[int]) -> W:
    """`whitening`, so adjusted that the flow's samples of `components` get the released mean and variances there.

    One mean and one deviation a released feature. Deterministic: the latents come from a fixed seed.
    """
    offset, scale = torch.zeros_like(whitening.mean), torch.ones_like(whitening.mean)
    with torch.no_grad():
        for component in set(components):
            before, after = _features(plan, whitening, flow, torch.tensor(component))
            scale[component] = (after.std(dim=0) / before.std(dim=0)).clamp(1.0 / _STRETCH, _STRETCH)
            offset[component] = after.mean(dim=0) - scale[component] * before.mean(dim=0)
    return whitening.moved(offset, scale)


def whitened(plan: PublicPlan, flow: Flow, latent: Tensor, y: Tensor) -> Tensor:
    """The whitened images [N, C, S, S] that a flow makes of latents of components [N]."""
    return by_chunks(flow.inverse, latent, condition(plan, y), most=_CHUNK)


def _features(plan: PublicPlan, whitening: Whitening, flow: Flow, component: Tensor) -> tuple[Tensor, Tensor]:
    """Features [SAMPLES, d] of latents of one component, and of the whitened images that the flow makes of them."""
    draws, before, after = TorchDraws(torch.Generator().manual_seed(0)), [], []
    for y in torch.split(component.repeat(SAMPLES), max(1, _BLOCK_PIXELS // plan.image.size**2)):
        latent = whitening.draw_latent(y, draws)
        white = whitened(plan, flow, latent, y)
        before.append(whitening.low(latent))
        after.append(whitening.low(white).nan_to_num(0.0).clamp(-_FARTHEST, _FARTHEST))
    return torch.cat(before), torch.cat(after)

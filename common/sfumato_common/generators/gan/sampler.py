"""Images of a released generator with a W space."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato_common.generators.base import Draw
from sfumato_common.generators.gan.networks import generator
from sfumato_common.generators.gan.w_space import WSpace, draw_images
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.weights import load_network
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.types import Arrays

_GENERATED_PIXELS = 2**22  # at once: a generator keeps dozens of maps of every image


def sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    """Draws images of components from released arrays."""
    spectral, network = spectral_model(plan, arrays), load_network("generator", generator, plan, arrays)

    def draw(y: Tensor, draws: Draws) -> Tensor:
        parts = torch.split(y, max(1, _GENERATED_PIXELS // plan.image.size**2))
        return torch.cat([draw_images(plan, network, spectral, part, draws) for part in parts])

    return draw


def w_space(plan: PublicPlan, arrays: Arrays) -> WSpace:
    """The W space of a released generator, whose weights are not to be trained further; on the CPU."""
    network = load_network("generator", generator, plan, arrays).requires_grad_(False)
    return WSpace(plan, network, spectral_model(plan, arrays))

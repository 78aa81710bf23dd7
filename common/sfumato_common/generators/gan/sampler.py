"""Images of a released generator with a W space."""

from __future__ import annotations

from torch import Tensor

from sfumato_common.generators.base import Draw
from sfumato_common.generators.gan.networks import generator
from sfumato_common.generators.gan.w_space import Noise, WSpace
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.weights import load_network
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.rows import by_chunks
from sfumato_common.types import Arrays


def sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    """Draws images of components from released arrays."""
    spectral, network = spectral_model(plan, arrays), load_network("generator", generator, plan, arrays)

    space = WSpace(plan, network, spectral)

    def draw(y: Tensor, draws: Draws) -> Tensor:
        z, noise = space.draw_latent(y, draws)

        def images(latents: Tensor, components: Tensor, tail: Tensor, *maps: Tensor) -> Tensor:
            return space.decode(space.mapping(latents, components), components, Noise(tail, list(maps)))

        return by_chunks(images, z, y, noise.tail, *noise.maps)

    return draw


def w_space(plan: PublicPlan, arrays: Arrays) -> WSpace:
    """The W space of a released generator, whose weights are not to be trained further; on the CPU."""
    network = load_network("generator", generator, plan, arrays).requires_grad_(False)
    return WSpace(plan, network, spectral_model(plan, arrays))

"""Images of a released StyleGAN2."""

from __future__ import annotations

from torch import Tensor

from sfumato_common.generators.base import Draw
from sfumato_common.generators.components import condition
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.stylegan2.generator import CODE
from sfumato_common.generators.stylegan2.networks import GENERATOR, generator
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.weights import load_network
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.rows import by_chunks
from sfumato_common.types import Arrays


def sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    """Draws images of components from released arrays."""
    network = load_network(GENERATOR, generator, plan, arrays)

    def draw(y: Tensor, draws: Draws) -> Tensor:
        def images(z: Tensor, components: Tensor, *noise: Tensor) -> Tensor:
            made: Tensor = network(z, condition(plan, components), noise)
            return made.clamp(-1.0, 1.0)

        return by_chunks(images, draws.normal((len(y), CODE)), y, *draw_noise(plan.image.size, len(y), draws))

    return draw

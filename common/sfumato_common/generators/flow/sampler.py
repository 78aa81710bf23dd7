"""Images of a released flow, with the released moments (see `flow.matching`)."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from sfumato_common.generators.base import Draw
from sfumato_common.generators.flow.flows import Flow
from sfumato_common.generators.flow.matching import match_moments, whitened
from sfumato_common.generators.flow.networks import flow
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.weights import load_network
from sfumato_common.generators.whitening import Whitening, whitening_of
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.types import Arrays


def released_flow(plan: PublicPlan, arrays: Arrays) -> Flow:
    """The flow of released arrays, on the CPU. Raises VerificationError when they do not fit the plan."""
    return load_network("flow", flow, plan, arrays)


def sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    """Draws images of components from released arrays."""
    whitening, network = whitening_of(plan, arrays), released_flow(plan, arrays)

    @cache
    def moved(components: tuple[int, ...]) -> Whitening:
        return match_moments(plan, whitening, network, components)

    def draw(y: Tensor, draws: Draws) -> Tensor:
        latent, noise = whitening.draw_latent(y, draws), whitening.draw_noise(len(y), draws)
        white = whitened(plan, network, latent, y)
        matched = moved(tuple(sorted(set(y.tolist()))))
        return matched.decode(white, y, *noise).nan_to_num(0.0).clamp(-1.0, 1.0)

    return draw

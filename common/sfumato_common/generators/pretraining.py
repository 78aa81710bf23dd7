"""What every trainer on public images is given, and how it takes a step: nothing here is anybody's, or private.

A trainer is `pretrain(job, draws)`, named in its generator's record: it gives weights by array name, and losses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato_common.generators.displacement import Betas
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.whitening import SpectralModel
from sfumato_common.generators.weights import Network, draw_network
from sfumato_common.generators.whitening import Whitening
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.types import AnyArray, Arrays

BATCH = 64
Pretrained = tuple[dict[str, AnyArray], list[float]]


@dataclass(frozen=True)
class PublicJob:
    """Public images of the plan's form and the first model that they would release, `released` by array name.

    `values` are their records, pixels [N, C, S, S] or features [N, d]; they and `components` [N] stay where they are
    drawn from.
    """

    plan: PublicPlan
    released: Arrays
    whitening: Whitening
    values: Tensor
    components: Tensor
    device: torch.device
    steps: int

    def batch(self, draws: TorchDraws) -> tuple[Tensor, Tensor]:
        """Dequantised images, or planes of features, and their components, drawn with replacement."""
        rows = draws.integers(len(self.values), BATCH)
        values = self.whitening.spread(self.values[rows], draws)
        return values.to(self.device), self.components[rows].to(self.device)

    @property
    def spectral(self) -> SpectralModel:
        """The whitening of a plan that begins with a spectral stage, as those with a GAN do."""
        assert isinstance(self.whitening, SpectralModel), "the plan was checked"
        return self.whitening

    def network(
        self, build: Callable[[PublicPlan], Network], learning_rate: float, betas: Betas
    ) -> tuple[Network, torch.optim.Optimizer]:
        """A network at its public start, and its optimiser."""
        network = draw_network(build, self.plan).to(self.device)
        return network, torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas)


def descend(loss: Tensor, network: nn.Module, optimiser: torch.optim.Optimizer) -> float:
    """One step of `optimiser` along gradients of norm 1 at most; the loss."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())

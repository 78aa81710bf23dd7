"""Conditional invertible network on vectors: volume-preserving GIN couplings (Sorrenson et al. 2020), as CADP's tables.

CADP (arXiv 2207.14625) has four GIN couplings with networks of 128 and 128 units. They keep volumes, so a diagonal map
whose shift and scale depend on the condition comes first and does what normalising needs. A new network is the identity
whatever its weights were drawn from. Every operation works per record, in any floating type.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.flow.cinn import PermutedCoupling
from sfumato_common.generators.flow.couplings import SOFT_CLAMP, Coupling
from sfumato_common.generators.spectral.whitening import standard_normal_log_prob


def _volume_preserving(raw: Tensor) -> Tensor:
    """Log scales [N, W] under the soft clamp of conditional INNs, less their mean: their sum is zero."""
    clamped = SOFT_CLAMP * (2.0 / math.pi) * torch.atan(raw / SOFT_CLAMP)
    return clamped - clamped.mean(dim=1, keepdim=True)


GIN = Coupling(_volume_preserving)


class _Network(nn.Module):
    """Three fully connected layers over the kept values and the condition; says zero at the start."""

    def __init__(self, inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inward, self.across = _draw_linear(inputs, hidden, generator), _draw_linear(hidden, hidden, generator)
        self.outward = _zero_linear(hidden, outputs)

    def forward(self, kept: Tensor, condition: Tensor) -> Tensor:
        """[N, W] and [N, K] -> [N, outputs]."""
        first = functional.silu(self.inward(torch.cat([kept, condition.to(kept)], dim=1)))
        raw: Tensor = self.outward(functional.silu(self.across(first)))
        # noise on the weights of a wider network must not add up to more (Jacot et al. 2018 scale so)
        return raw / math.sqrt(self.outward.in_features)


class TableINN(nn.Module):
    """Vectors [N, D], D at least 2, and conditions [N, K] <-> latents [N, D] that are standard normal if it is right.

    `generator` draws the first weights of the hidden layers, so that the start is public and the same everywhere.
    """

    # the whole loss, because parameters enter the log-determinant outside any layer
    private_engine: ClassVar[str] = "vmap"

    def __init__(self, width: int, classes: int, couplings: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        assert width >= 2, "a coupling needs two values at least"
        # one value common to all conditions, the bias, and one for each
        self.shift, self.log_scale = _zero_linear(classes, width), _zero_linear(classes, width)
        kept, changed = width - width // 2, width // 2
        self.couplings = nn.ModuleList(
            PermutedCoupling(width, index, GIN, _Network(kept + classes, hidden, GIN.outputs * changed, generator))
            for index in range(couplings)
        )

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """[N, D] and [N, K] -> latents [N, D] and log|det| [N], which is the diagonal's alone."""
        log_scale = self.log_scale(condition.to(x))
        z = (x - self.shift(condition.to(x))) * log_scale.exp()
        for coupling in self.couplings:
            z, _ = coupling(z, condition)
        return z, log_scale.sum(dim=1)

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `forward`: latents [N, D] -> vectors [N, D]."""
        for coupling in reversed(list(self.couplings.children())):
            z = coupling.inverse(z, condition)  # type: ignore[operator]
        x: Tensor = z * (-self.log_scale(condition.to(z))).exp() + self.shift(condition.to(z))
        return x


def table_loss(forward: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    """Negative log-likelihood of vectors [N, D] in nats a dimension, one value a record [N]."""
    z, log_det = forward(x, condition)
    nats: Tensor = -(standard_normal_log_prob(z) + log_det)
    return nats / x.shape[1]


def _draw_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer with uniform weights of variance 1 / inputs and no shift."""
    layer = _zero_linear(inputs, outputs)
    bound = math.sqrt(3.0 / inputs)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    return layer


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer that says zero until it is trained."""
    layer = nn.Linear(inputs, outputs)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

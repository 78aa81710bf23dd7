"""Conditional invertible network on whitened images (Ardizzone et al. 2019; as CADP has it, arXiv 2207.14625).

Every level squeezes and passes couplings under fixed permutations of channels; then all values, flattened, pass fully
connected couplings under fixed permutations. A permutation, its coupling and the permutation's inverse are one layer
here: the same family, and the identity at the start. Conditions enter one-hot, beside every network's input.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.flow.couplings import COUPLINGS, Coupling
from sfumato_common.generators.flow.flows import Flow, condition_planes, squeeze_repeatedly, unsqueezed
from sfumato_common.generators.flow.glow import zero_convolution


class PermutedCoupling(nn.Module):
    """A coupling of [N, W, ...] under the public permutation number `index`; `network` reads the half that stays."""

    def __init__(self, width: int, index: int, coupling: Coupling, network: nn.Module) -> None:
        super().__init__()
        self.width, self.index, self.coupling, self.network = width, index, coupling, network

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """[N, W, ...] -> the same shape and log|det| [N]."""
        kept, changed = self.split(x)
        changed, log_det = self.coupling.forward(changed, self.network(kept, condition))
        return self.merge(kept, changed), log_det

    def inverse(self, x: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `forward`."""
        kept, changed = self.split(x)
        return self.merge(kept, self.coupling.inverse(changed, self.network(kept, condition)))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The part that is read and the part that changes, in the permutation's order."""
        order, _ = _permutation(self.width, self.index)
        ordered, kept = x[:, order.to(x.device)], self.width - self.width // 2
        return ordered[:, :kept], ordered[:, kept:]

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        """Inverse of `split`."""
        _, back = _permutation(self.width, self.index)
        return torch.cat([kept, changed], dim=1)[:, back.to(kept.device)]


class _Convolutions(nn.Module):
    """Two 3x3 convolutions over the kept channels and the condition's planes; says zero at the start."""

    def __init__(self, inputs: int, classes: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.inward = nn.Conv2d(inputs + classes, hidden, 3, padding=1)
        self.outward = zero_convolution(hidden, outputs)

    def forward(self, kept: Tensor, condition: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, outputs, H, W]."""
        raw: Tensor = self.outward(functional.silu(self.inward(condition_planes(condition, kept))))
        return raw


class _Dense(nn.Module):
    """Two fully connected layers over the kept values and the condition; says zero at the start."""

    def __init__(self, inputs: int, classes: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(inputs + classes, hidden), nn.Linear(hidden, outputs)
        for parameter in self.outward.parameters():
            nn.init.zeros_(parameter)

    def forward(self, kept: Tensor, condition: Tensor) -> Tensor:
        """[N, D] -> [N, outputs]."""
        raw: Tensor = self.outward(functional.silu(self.inward(torch.cat([kept, condition.to(kept)], dim=1))))
        return raw


def convolutional(width: int, index: int, classes: int, hidden: int, rule: Coupling) -> PermutedCoupling:
    """A coupling of `width` channels under the permutation number `index`, by two convolutions."""
    network = _Convolutions(width - width // 2, classes, hidden, rule.outputs * (width // 2))
    return PermutedCoupling(width, index, rule, network)


def fully_connected(width: int, index: int, classes: int, hidden: int, rule: Coupling) -> PermutedCoupling:
    """A coupling of `width` values under the permutation number `index`, by two fully connected layers."""
    network = _Dense(width - width // 2, classes, hidden, rule.outputs * (width // 2))
    return PermutedCoupling(width, index, rule, network)


def coupled(couplings: nn.Module, u: Tensor, condition: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """[N, ...] through the module's `couplings` in turn: the same shape, and `total` [N] with their log|det|."""
    for coupling in couplings.children():
        u, log_det = coupling(u, condition)
        total = total + log_det
    return u, total


def uncoupled(couplings: nn.Module, v: Tensor, condition: Tensor) -> Tensor:
    """Inverse of `coupled`."""
    for coupling in reversed(list(couplings.children())):
        v = coupling.inverse(v, condition)  # type: ignore[operator]
    return v


class ConditionalINN(Flow):
    """`levels` of squeeze with `steps` couplings each, then `dense` couplings of all values of images of `size`."""

    def __init__(
        self,
        channels: int,
        classes: int,
        levels: int,
        steps: int,
        hidden: int,
        coupling: str = "affine",
        *,
        size: int,
        dense: int = 2,
    ) -> None:
        super().__init__(channels)
        terms = classes, hidden, COUPLINGS[coupling]
        self.levels = nn.ModuleList(
            nn.ModuleList(convolutional(channels * 4**level, step, *terms) for step in range(steps))
            for level in range(1, levels + 1)
        )
        self.dense = nn.ModuleList(fully_connected(channels * size**2, step, *terms) for step in range(dense))

    def _forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        total = u.new_zeros(u.shape[0])
        for level in self.levels:
            u, total = coupled(level, functional.pixel_unshuffle(u, 2), condition, total)
        flat, total = coupled(self.dense, u.flatten(1), condition, total)
        return unsqueezed(flat.reshape(u.shape), len(self.levels)), total

    def _inverse(self, v: Tensor, condition: Tensor) -> Tensor:
        u = squeeze_repeatedly(v, len(self.levels))
        u = uncoupled(self.dense, u.flatten(1), condition).reshape(u.shape)
        for level in reversed(self.levels):
            u = functional.pixel_shuffle(uncoupled(level, u, condition), 2)
        return u


@lru_cache(maxsize=64)
def _permutation(width: int, index: int) -> tuple[Tensor, Tensor]:
    """The public permutation number `index` of `width` values, and its inverse; odd ones swap the even one's halves.

    A value that stays in one coupling is thus changed by the next, whatever chance does.
    """
    order = np.random.default_rng((width, index // 2)).permutation(width)
    if index % 2:
        order = np.roll(order, width // 2)
    return torch.from_numpy(order), torch.from_numpy(np.argsort(order))

"""The table of couplings: how one part of a record is changed by values that a network computed from the other part.

A coupling is invertible whatever the network says (Dinh et al. 2017). Scales are bounded, so that neither DP noise nor
crafted weights can make an inverse explode. A network that says zero changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# affine couplings and priors scale by exp(s), |s| < this
LARGEST_LOG_SCALE = 1.0
# the clamp that CADP (arXiv 2207.14625) uses on digits
SOFT_CLAMP = 1.5


@dataclass(frozen=True)
class Coupling:
    """`bound` takes raw values to log scales; None leaves the volume as it is, and the network says shifts only."""

    bound: Callable[[Tensor], Tensor] | None

    @property
    def outputs(self) -> int:
        """How many values the network says for every changed one."""
        return 1 if self.bound is None else 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Values [N, C, ...] by the network's raw [N, C * outputs, ...] -> changed values, log|det| [N]."""
        log_scale, shift = self._split(raw)
        return x * log_scale.exp() + shift, log_scale.flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """Inverse of `forward`, given the same raw values."""
        log_scale, shift = self._split(raw)
        return (y - shift) * (-log_scale).exp()

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        if self.bound is None:
            return torch.zeros_like(raw), raw
        log_scale, shift = raw.chunk(2, dim=1)
        return self.bound(log_scale), shift


def _tanh(raw: Tensor) -> Tensor:
    return LARGEST_LOG_SCALE * torch.tanh(raw / LARGEST_LOG_SCALE)


def _arctangent(raw: Tensor) -> Tensor:
    """The soft clamp of conditional INNs (Ardizzone et al. 2019)."""
    return SOFT_CLAMP * (2.0 / math.pi) * torch.atan(raw / SOFT_CLAMP)


# To add a coupling: one line here, and its name in settings.py.
COUPLINGS: dict[str, Coupling] = {
    "affine": Coupling(_tanh),
    "soft-clamp": Coupling(_arctangent),
    "additive": Coupling(None),
}

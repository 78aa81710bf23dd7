"""Modulated, demodulated convolutions with noise maps (StyleGAN2: Karras et al. 2020, section 2.2 and appendix B).

Weights stay shared by the batch: the style scales a record's channels before the convolution and the demodulation
scales them after it, which is the same as scaling the kernel and couples no records.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of every leaky ReLU
_EPSILON = 1e-8


class ModulatedConv(nn.Module):
    """3 x 3 convolution whose kernel a style scales: [N, I, S, S], styles [N, W], map [N, 1, S, S] -> [N, O, S, S]."""

    def __init__(self, inputs: int, outputs: int, style_width: int) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(inputs, outputs, 3, padding=1)  # its scale is of no matter: demodulation takes it out
        self.style = nn.Linear(style_width, inputs)
        self.strength = nn.Parameter(torch.zeros(()))  # of the noise: none at the start
        nn.init.ones_(self.style.bias)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """The layer with its leaky ReLU, whose gain keeps the variance."""
        scale = self.style(style)
        kernel = self.kernel.weight
        energy = scale.square() @ kernel.square().sum(dim=(2, 3)).T
        x = functional.conv2d(x * scale[:, :, None, None], kernel, padding=1)
        x = x * torch.rsqrt(energy + _EPSILON)[:, :, None, None]
        x = x + self.strength * noise
        if self.kernel.bias is not None:
            x = x + self.kernel.bias[:, None, None]
        return functional.leaky_relu(x, SLOPE) * math.sqrt(2.0)


def pixel_norm(z: Tensor) -> Tensor:
    """Rows of [N, D] with mean square 1 (Karras et al. 2018, section 4.2)."""
    return z * torch.rsqrt(z.square().mean(dim=-1, keepdim=True) + _EPSILON)

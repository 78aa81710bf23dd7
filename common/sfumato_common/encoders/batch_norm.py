"""Batch normalisation with its published moments for good (Ioffe and Szegedy 2015): an affine map of each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class FixedBatchNorm(nn.Module):
    """[N, C, H, W] to the same, each image on its own, whatever mode the module is in; names are torch's."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalised by the published moments."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self._epsilon
        )

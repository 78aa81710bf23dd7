"""The residual discriminator of StyleGAN2 (Karras et al. 2020, section 4.1), of layers with exact gradients a record.

Learning rates are equalised by scaling what goes into a layer, so that layers are plain ones, which DP-SGD engines know
by name; maps are halved by means of two by two. Only `spread`, the minibatch deviation (Karras et al. 2018, section 3),
couples records: it has no parameters, is never built where a plan is private, and suitability checks would refuse it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.stylegan2.generator import resolutions
from sfumato_common.generators.stylegan2.layers import GAIN, SLOPE, halve

_COARSEST, _GROUP = 4, 4


class Scaled(nn.Module):
    """A plain layer of unit weights with an equalised learning rate: its inputs are scaled as He's start would."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self._scale = 1.0 / math.sqrt(layer.weight[0].numel())
        nn.init.normal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """The layer of `gain` times `x`."""
        y: Tensor = self.layer(x * (gain * self._scale))
        return y


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)


class ResidualBlock(nn.Module):
    """[N, I, S, S] -> [N, O, S / 2, S / 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Scaled(nn.Conv2d(inputs, inputs, 3, padding=1))
        self.second = Scaled(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.skip = Scaled(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Half of the variance is the skip's."""
        half = math.sqrt(0.5)
        down = halve(_leaky(self.first(x)))
        made: Tensor = _leaky(self.second(down, GAIN)) * (GAIN * half)
        skipped: Tensor = self.skip(halve(x), half)
        return made + skipped


class Discriminator(nn.Module):
    """Images [N, C, S, S] and conditions [N, K] -> logits [N] that they are real, by projection of the condition."""

    private_engine: ClassVar[str] = "bookkeeping"

    def __init__(self, size: int, channels: int, classes: int, base: int, most: int, *, spread: bool) -> None:
        super().__init__()
        widths = [min(base // side, most) for side in resolutions(size)[::-1]]
        self.image = Scaled(nn.Conv2d(channels, widths[0], 1))
        self.blocks = nn.Sequential(*(ResidualBlock(*pair) for pair in pairwise(widths)))
        self._spread, last = spread, widths[-1]
        self.conv = Scaled(nn.Conv2d(last + spread, last, 3, padding=1))
        self.hidden = Scaled(nn.Linear(last * _COARSEST**2, last))
        self.head = Scaled(nn.Linear(last, 1))
        self.projection = Scaled(nn.Linear(classes, last, bias=False))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Logits [N]."""
        x = self.blocks(_leaky(self.image(x)) * GAIN)
        if self._spread:
            x = torch.cat([x, spread_of(x)], dim=1)
        x = _leaky(self.conv(x))
        features = _leaky(self.hidden(x.flatten(1), GAIN)).float() * GAIN
        given = self.projection(condition, math.sqrt(condition.shape[1])).float()  # what a one-hot one needs
        projected = (given * features).sum(dim=1) / math.sqrt(features.shape[1])
        logits: Tensor = self.head(features).float()[:, 0] + projected
        return logits


def spread_of(x: Tensor) -> Tensor:
    """Mean deviation within groups of four records, or a few more where four do not divide N, as a map [N, 1, S, S]."""
    count = max(1, len(x) // _GROUP)
    group = torch.arange(len(x), device=x.device) % count
    share = 1.0 / torch.zeros(count, device=x.device).index_add(0, group, torch.ones(len(x), device=x.device))

    def mean(values: Tensor) -> Tensor:
        return (
            torch.zeros(count, *x.shape[1:], device=x.device).index_add(0, group, values) * share[:, None, None, None]
        )

    apart = x.float() - mean(x.float())[group]
    size = (mean(apart.square()) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return size[group, None, None, None].to(x.dtype).expand(-1, 1, *x.shape[2:])

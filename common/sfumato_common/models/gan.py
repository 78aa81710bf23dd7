"""Conditional GAN whose generator starts exactly at the spectral model, and a discriminator fit for DP-SGD.

The generator corrects spectral samples with a small resize-convolution net (Odena et al. 2016: transposed convolutions
show checkerboards) whose last layer starts at zero. The discriminator has GroupNorm only: no layer couples records or
has buffers, and every layer has an exact per-record gradient. Labels enter one-hot, [N, K].
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.config.plan import Plan
from sfumato_common.models.whitening import SpectralModel

# The largest correction of a pixel, in units of [-1, 1]: the generator may sharpen its start, not leave it.
LARGEST_CORRECTION = 0.3


class Generator(nn.Module):
    """Spectral samples [N, C, S, S] -> images in [-1, 1]; at the start the clamped identity.

    Conditional through its input only: told the label as well, it learned to stamp each class with an artefact.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up1 = nn.Conv2d(3 * width, width, 3, padding=1)
        self.up2 = nn.Conv2d(width + channels, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, base: Tensor) -> Tensor:
        """`base` plus a bounded fine correction, clamped to [-1, 1]."""
        half = functional.leaky_relu(self.down1(base), 0.2)
        quarter = functional.leaky_relu(self.down2(half), 0.2)
        quarter = functional.leaky_relu(self.middle(quarter), 0.2)
        up = functional.leaky_relu(self.up1(torch.cat([_doubled(quarter), half], dim=1)), 0.2)
        up = functional.leaky_relu(self.up2(torch.cat([_doubled(up), base], dim=1)), 0.2)
        return (base + LARGEST_CORRECTION * _fine(torch.tanh(self.last(up)))).clamp(-1.0, 1.0)


def _fine(x: Tensor) -> Tensor:
    """What is left of [N, C, S, S] without an 8 x 8 grid of means: the coarse part is the spectral release's."""
    coarse = functional.adaptive_avg_pool2d(x, 8)
    return x - functional.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Discriminator(nn.Module):
    """Projection discriminator (Miyato and Koyama 2018): [N, C, S, S] and labels [N, K] -> logits [N]."""

    private_engine: ClassVar[str] = "bookkeeping"

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for out in (width, 2 * width, 2 * width):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GroupNorm(out // 8, out), nn.LeakyReLU(0.2)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 1)
        self.projection = nn.Linear(classes, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Logits [N] that an image is real."""
        pooled = self.features(x).mean(dim=(2, 3))
        logits: Tensor = self.head(pooled)[:, 0] + (self.projection(condition) * pooled).sum(dim=1)
        return logits


def real_loss(forward: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    """Logistic loss of the discriminator on real images, one value a record [N]."""
    return functional.softplus(-forward(x, condition))


def fake_loss(forward: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    """Logistic loss of the discriminator on generated images, one value a record [N]."""
    return functional.softplus(forward(x, condition))


def draw_images(
    plan: Plan, generator: nn.Module, spectral: SpectralModel, components: Tensor, rng: torch.Generator
) -> Tensor:
    """Images [N, C, S, S] in [-1, 1] for components [N]; differentiable in the generator's parameters."""
    images: Tensor = generator(spectral.sample(components, rng))
    return images

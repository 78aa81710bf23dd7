"""Losses of a codec, each of images [N, C, S, S] in [-1, 1] against those that they came from; means, unit-free.

Pixels alone give the best PSNR and too smooth a picture; the others lift what is fine, at a price in PSNR (Blau and
Michaeli 2018). `make bench NAME=codec` measures what each one buys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_SCALES = 4
_BANDS = 3
_WINDOW = 8  # pixels a side over which energies are compared
_TINY = 1e-4  # squared units: below it an energy is no texture
_FEATURES = (24, 32, 48)
_PATCH_WIDTHS = (32, 64, 96)
SLOPE = 0.2


def pixel_loss(made: Tensor, real: Tensor) -> Tensor:
    """Squared error."""
    return functional.mse_loss(made, real)


def gradient_loss(made: Tensor, real: Tensor) -> Tensor:
    """Squared error of differences to the right and below, at four scales (multi-scale gradient: Eigen et al. 2015)."""
    gap, total = made - real, made.new_zeros(())
    for _ in range(_SCALES):
        total = total + gap.diff(dim=2).square().mean() + gap.diff(dim=3).square().mean()
        gap = functional.avg_pool2d(gap, 2)
    return total / _SCALES


def energy_loss(made: Tensor, real: Tensor) -> Tensor:
    """Squared error of the logarithm of energies in windows of 8 pixels, in the three finest bands of a pyramid."""
    total = made.new_zeros(())
    for own, other in zip(_bands(made), _bands(real), strict=True):
        window = max(2, _WINDOW * own.shape[-1] // made.shape[-1])
        energies = (functional.avg_pool2d(x.square(), window) for x in (own, other))
        mine, aim = (torch.log(energy + _TINY) for energy in energies)
        total = total + functional.mse_loss(mine, aim)
    return total / _BANDS


def _bands(x: Tensor) -> list[Tensor]:
    """Differences of an image and its smoothed half, as a Laplacian pyramid (Burt and Adelson 1983) has them."""
    found = []
    for _ in range(_BANDS):
        small = functional.avg_pool2d(x, 2)
        found.append(x - functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False))
        x = small
    return found


class RandomFeatures(nn.Module):
    """Responses of three frozen random convolutions (as in `metrics.features`), every level at its own size."""

    def __init__(self, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for width in _FEATURES:
            level = nn.Conv2d(channels, width, 3, stride=2 if len(self.levels) else 1, padding=1, bias=False)
            nn.init.normal_(level.weight, 0.0, (2.0 / (9 * channels)) ** 0.5, generator=rng)
            self.levels.append(level.requires_grad_(False))
            channels = width

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Squared error of the responses, each level over the real ones' own size."""
        total = made.new_zeros(())
        for level in self.levels:
            made, real = functional.relu(level(made)), functional.relu(level(real))
            total = total + functional.mse_loss(made, real) / real.square().mean().detach().clamp_min(_TINY)
        return total / len(self.levels)


class PatchJudge(nn.Module):
    """Discriminator of patches (Isola et al. 2017) that sees an image and its plain low frequencies: [N, 1, s, s]."""

    def __init__(self, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 2 * channels
        for number, width in enumerate(_PATCH_WIDTHS):
            layers += [nn.Conv2d(before, width, 4 if number else 3, stride=2 if number else 1, padding=1)]
            layers += [nn.LeakyReLU(SLOPE)]
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, padding=1))
        for parameter in self.parameters():
            spread = (2.0 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.0
            nn.init.normal_(parameter, 0.0, spread, generator=rng)

    def forward(self, images: Tensor, plain: Tensor) -> Tensor:
        """Scores; higher is more real. What is finer than the plain image is shown large."""
        scores: Tensor = self.layers(torch.cat([4.0 * (images - plain), plain], dim=1))
        return scores


def judge_loss(real: Tensor, made: Tensor) -> Tensor:
    """Hinge loss of a discriminator's scores (Lim and Ye 2017)."""
    return functional.relu(1.0 - real).mean() + functional.relu(1.0 + made).mean()

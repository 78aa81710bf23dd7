"""Adaptive discriminator augmentation (ADA: Karras et al. 2020, "with Limited Data", section 3 and appendix B).

Of appendix B: blitting, geometry and colour, each with probability p, the same for real and generated images, as one
affine map and one map of colours an image. Images are read bilinearly and reflected at their edges, without the paper's
wavelet filters.
"""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from sfumato_common.mechanisms.draws import TorchDraws

# the share of real images that the discriminator takes for real by more than chance, towards which p moves, and over
# how many images it could go from 0 to 1
TARGET = 0.6
IMAGES = 100_000
_MOST = 0.8  # beyond it what images were augmented by shows in generated ones (section 2.2)
_SHIFT, _STRETCH = 0.125, 0.2


def augment(images: Tensor, probability: float | Tensor, draws: TorchDraws) -> Tensor:
    """Images [N, C, S, S], each changed at random; as they are where the probability is 0. Differentiable in them.

    A probability that is a tensor [] is not read: work that is recorded does the same for every one.
    """
    if not isinstance(probability, Tensor) and probability <= 0.0:
        return images
    return _recolour(_warp(images, probability, draws), probability, draws)


class Adaptation:
    """The probability p, which follows how surely real images are told (r_t of section 3.1)."""

    def __init__(self) -> None:
        self.probability = 0.0

    def see(self, surely: float, count: int) -> None:
        """Move a step for the mean sign of the discriminator's logits of so many real images."""
        overfit = surely > TARGET
        step = count / IMAGES
        self.probability = min(_MOST, max(0.0, self.probability + (step if overfit else -step)))


def _warp(images: Tensor, p: float | Tensor, draws: TorchDraws) -> Tensor:
    count, side = len(images), images.shape[-1]
    one, zero = torch.ones(count, device=images.device), torch.zeros(count, device=images.device)

    def uniform() -> Tensor:
        return draws.uniform((count,))

    def taken(chance: float | Tensor, values: Tensor) -> Tensor:
        return torch.where(uniform() < chance, values, zero)

    def normal(scale: float) -> Tensor:
        return taken(p, scale * draws.normal((count,)))

    def matrix(*rows: Tensor) -> Tensor:
        return torch.stack([*rows, zero, zero, one], dim=1).view(count, 3, 3)

    def shift(across: Tensor, down: Tensor) -> Tensor:
        return matrix(one, zero, across, zero, one, down)

    def turn(angle: Tensor) -> Tensor:
        return matrix(angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero)

    def stretch(across: Tensor, down: Tensor) -> Tensor:
        return matrix(across, zero, zero, zero, down, zero)

    def pixels() -> Tensor:
        return taken(p, 2.0 / side * ((2.0 * uniform() - 1.0) * _SHIFT * side).round())

    # arbitrary turns come before and after the stretch; together with probability p
    once = 1.0 - (1.0 - p) ** 0.5
    scale, ratio = torch.exp2(normal(_STRETCH)), torch.exp2(normal(_STRETCH))
    maps = [
        stretch(1.0 - 2.0 * taken(p, (uniform() < 0.5).float()), one),
        turn(taken(p, (4.0 * uniform()).floor()) * (math.pi / 2.0)),
        shift(pixels(), pixels()),
        stretch(scale, scale),
        turn(taken(once, (2.0 * uniform() - 1.0) * math.pi)),
        stretch(ratio, 1.0 / ratio),
        turn(taken(once, (2.0 * uniform() - 1.0) * math.pi)),
        shift(normal(2.0 * _SHIFT), normal(2.0 * _SHIFT)),
    ]
    grid = functional.affine_grid(reduce(torch.matmul, maps)[:, :2], list(images.shape), align_corners=False)
    return functional.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, p: float | Tensor, draws: TorchDraws) -> Tensor:
    def normal(scale: float) -> Tensor:
        shape = (len(images), 1, 1, 1)
        return scale * draws.normal(shape) * (draws.uniform(shape) < p)

    images = (images + normal(0.2)) * torch.exp2(normal(0.5))
    if images.shape[1] == 3:
        # saturation: how far a colour stands off the grey axis
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * torch.exp2(normal(1.0))
    return images

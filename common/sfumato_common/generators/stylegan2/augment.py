"""Adaptive discriminator augmentation (ADA: Karras et al. 2020, "with Limited Data", section 3 and appendix B).

Of appendix B: blitting, geometry and colour, each with probability p, the same for real and generated images, as one
affine map and one map of colours an image. Images are read bilinearly and reflected at their edges, without the paper's
wavelet filters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
_LUMA = 1.0 / math.sqrt(3.0)


def augment(images: Tensor, probability: float, draws: TorchDraws) -> Tensor:
    """Images [N, C, S, S], each changed at random; as they are where the probability is 0. Differentiable in them."""
    if probability <= 0.0:
        return images
    return _recolour(_warp(images, probability, draws), probability, draws)


class Adaptation:
    """The probability p, which follows how surely real images are told (r_t of section 3.1)."""

    def __init__(self) -> None:
        self.probability = 0.0

    def see(self, logits: Tensor) -> None:
        """Move a step for the discriminator's logits [N] of real images."""
        overfit = float(logits.detach().sign().mean()) > TARGET
        step = len(logits) / IMAGES
        self.probability = min(_MOST, max(0.0, self.probability + (step if overfit else -step)))


def _warp(images: Tensor, p: float, draws: TorchDraws) -> Tensor:
    count, side = len(images), images.shape[-1]

    def taken(chance: float, values: Tensor, otherwise: float = 0.0) -> Tensor:
        return torch.where(draws.uniform((count,)) < chance, values, otherwise)

    def uniform() -> Tensor:
        return draws.uniform((count,))

    def shift(across: Tensor, down: Tensor) -> Tensor:
        return _matrix([[1.0, 0.0, across], [0.0, 1.0, down]], images)

    def turn(angle: Tensor) -> Tensor:
        return _matrix([[angle.cos(), -angle.sin(), 0.0], [angle.sin(), angle.cos(), 0.0]], images)

    def stretch(across: Tensor, down: Tensor) -> Tensor:
        return _matrix([[across, 0.0, 0.0], [0.0, down, 0.0]], images)

    def normal() -> Tensor:
        return draws.normal((count,))

    # arbitrary turns come before and after the stretch; together with probability p
    once = 1.0 - math.sqrt(1.0 - p)
    pixels = [2.0 / side * ((2.0 * uniform() - 1.0) * _SHIFT * side).round() for _ in range(2)]
    scale = torch.exp2(taken(p, _STRETCH * normal()))
    ratio = torch.exp2(taken(p, _STRETCH * normal()))
    maps = [
        stretch(1.0 - 2.0 * taken(p, (uniform() < 0.5).float()), torch.ones_like(scale)),
        turn(taken(p, (4.0 * uniform()).floor()) * (math.pi / 2.0)),
        shift(taken(p, pixels[0]), taken(p, pixels[1])),
        stretch(scale, scale),
        turn(taken(once, (2.0 * uniform() - 1.0) * math.pi)),
        stretch(ratio, 1.0 / ratio),
        turn(taken(once, (2.0 * uniform() - 1.0) * math.pi)),
        shift(taken(p, 2.0 * _SHIFT * normal()), taken(p, 2.0 * _SHIFT * normal())),
    ]
    whole = maps[0]
    for following in maps[1:]:
        whole = whole @ following
    grid = functional.affine_grid(whole[:, :2], list(images.shape), align_corners=False)
    return functional.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, p: float, draws: TorchDraws) -> Tensor:
    count = len(images)

    def taken(values: Tensor, otherwise: float) -> Tensor:
        return torch.where(draws.uniform((count,)) < p, values, otherwise)[:, None, None, None]

    normal: Callable[[], Tensor] = lambda: draws.normal((count,))  # noqa: E731
    images = images + taken(0.2 * normal(), 0.0)
    images = images * taken(torch.exp2(0.5 * normal()), 1.0)
    if images.shape[1] == 3:
        # saturation: what of a colour stands off the grey axis
        grey = images.sum(dim=1, keepdim=True) * _LUMA * _LUMA
        images = grey + (images - grey) * taken(torch.exp2(normal()), 1.0)
    return images


def _matrix(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """[N, 3, 3] of two rows of numbers, [N] or one for all."""
    count = len(like)
    filled = [torch.stack([torch.as_tensor(v, device=like.device).expand(count) for v in row], 1) for row in rows]
    last = torch.tensor([0.0, 0.0, 1.0], device=like.device).expand(count, 3)
    return torch.stack([*(row.float() for row in filled), last], dim=1)

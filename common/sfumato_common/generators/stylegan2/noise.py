"""What a StyleGAN2 image has beside its code: a map of noise a convolution."""

from __future__ import annotations

from torch import Tensor

from sfumato_common.generators.stylegan2.generator import noise_sides
from sfumato_common.mechanisms.draws import Draws


def draw_noise(size: int, count: int, draws: Draws) -> list[Tensor]:
    """Noise [N, 1, R, R] of every convolution, from coarse to fine."""
    return [draws.normal((count, 1, side, side)) for side in noise_sides(size)]

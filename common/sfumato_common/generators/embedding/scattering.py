"""First and second order scattering (Bruna and Mallat 2013) on a pyramid, with fixed public Morlet wavelets.

Each level halves the image by a binomial low-pass; one small bank of wavelets serves all levels. Moduli are pooled on
a coarse grid. Nothing is learned, every layer treats each image on its own, and gradients pass through to the image.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

ORIENTATIONS = 4
FIRST_GRID, SECOND_GRID = 4, 2
_KERNEL = 7
_SMALLEST_SIDE = 7  # of a level: a wavelet does not fit in less
_LARGEST_OCTAVES = 2  # between the wavelets of a second-order path: further ones carry hardly any energy
_SIGMA, _FREQUENCY, _SLANT = 0.8, 0.75 * math.pi, 1.0
_SMOOTH = 1e-6  # under the root of a modulus, so that its gradient exists at zero


def levels_of(size: int) -> int:
    """How many levels an image of `size` pixels has."""
    return int(math.log2(size / _SMALLEST_SIDE)) + 1


def paths_of(size: int) -> list[tuple[int, int]]:
    """Pairs of levels of the second-order paths."""
    levels = levels_of(size)
    return [(a, b) for a in range(levels) for b in range(a + 1, min(levels, a + 1 + _LARGEST_OCTAVES))]


def group_sizes(size: int) -> list[int]:
    """Numbers of coefficients: one first-order group a level, one second-order group a path."""
    first = [ORIENTATIONS * FIRST_GRID**2] * levels_of(size)
    return first + [ORIENTATIONS**2 * SECOND_GRID**2] * len(paths_of(size))


def scattering(images: Tensor) -> Tensor:
    """Coefficients [N, sum(group_sizes(S))] of grey images [N, 1, S, S], differentiable."""
    size = images.shape[-1]
    level, moduli = images, []
    for number in range(levels_of(size)):
        level = _halve(level) if number else level
        moduli.append(_modulus(level))  # [N, L, s, s]
    parts = [functional.adaptive_avg_pool2d(value, FIRST_GRID).flatten(1) for value in moduli]
    for start, end in paths_of(size):
        value = moduli[start].flatten(0, 1)[:, None]  # [N L, 1, s, s]
        for _ in range(end - start):
            value = _halve(value)
        second = functional.adaptive_avg_pool2d(_modulus(value), SECOND_GRID)  # [N L, L, 2, 2]
        parts.append(second.reshape(len(images), -1))
    return torch.cat(parts, dim=1)


def _modulus(x: Tensor) -> Tensor:
    """|x * psi| for each orientation: [N, 1, s, s] -> [N, L, s, s]."""
    half = _KERNEL // 2
    padded = functional.pad(x, (half, half, half, half), mode="reflect")
    both = functional.conv2d(padded, _bank().to(padded))
    real, imaginary = both.chunk(2, dim=1)
    return (real.square() + imaginary.square() + _SMOOTH).sqrt()


def _halve(x: Tensor) -> Tensor:
    """Low-pass and every second pixel, [N, 1, s, s] -> [N, 1, ceil(s / 2), ceil(s / 2)]."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]).to(x) / 16.0
    padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
    rows = functional.conv2d(padded, taps.view(1, 1, 5, 1), stride=(2, 1))
    return functional.conv2d(rows, taps.view(1, 1, 1, 5), stride=(1, 2))


@cache
def _bank() -> Tensor:
    """Morlet wavelets [2 L, 1, 7, 7], real parts first; their sums are zero, their absolute values sum to 1."""
    reach = np.arange(_KERNEL) - _KERNEL // 2
    v, u = np.meshgrid(reach, reach, indexing="ij")
    wavelets = []
    for angle in math.pi * np.arange(ORIENTATIONS) / ORIENTATIONS:
        along, across = u * math.cos(angle) + v * math.sin(angle), -u * math.sin(angle) + v * math.cos(angle)
        envelope = np.exp(-(along**2 + (_SLANT * across) ** 2) / (2.0 * _SIGMA**2))
        wave = envelope * np.exp(1j * _FREQUENCY * along)
        wave = wave - envelope * (wave.sum() / envelope.sum())
        wavelets.append(wave / np.abs(wave).sum())
    stacked = np.stack(wavelets)[:, None]
    return torch.from_numpy(np.concatenate([stacked.real, stacked.imag])).float()

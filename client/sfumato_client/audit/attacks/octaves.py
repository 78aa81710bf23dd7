"""Octaves of detail of images, each cell about its mean over people and in units of its deviation.

What people share falls away, and what is usual weighs less than what is rare. That makes a correlation a matched filter
for what one person leaves of itself in an average of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_client.audit.attacks.base import rows_of_chunk
from sfumato_client.audit.attacks.fine import LARGEST
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages, to_unit_range

_COARSEST, PATCHES = 4, 4  # cells a side of the softest shapes; patches a side


@dataclass(frozen=True, eq=False)
class Common:
    """Mean and deviation over people of each cell of each octave."""

    mean: Sequence[Tensor]
    deviation: Sequence[Tensor]

    @classmethod
    def of(cls, images: ByteImages) -> Common:
        """That of images [N, S, S(, 3)], summed a chunk at a time."""
        total: list[Tensor] = []
        squares: list[Tensor] = []
        for part in _chunks(images):
            bands = [band.double() for band in _octaves(part)]
            sums, second = [band.sum(dim=0) for band in bands], [(band**2).sum(dim=0) for band in bands]
            total = [a + b for a, b in zip(total, sums, strict=True)] if total else sums
            squares = [a + b for a, b in zip(squares, second, strict=True)] if squares else second
        mean = [band / len(images) for band in total]
        spread = [(s / len(images) - m**2).clamp(min=0).sqrt() for s, m in zip(squares, mean, strict=True)]
        # where hardly anything varies, differences are grain
        return cls([m.float() for m in mean], [(s + 0.5 * s.mean() + 1e-6).float() for s in spread])

    def own(self, images: ByteImages) -> list[Tensor]:
        """Octaves [N, P, D] of images, in patches, each cell about its mean over people."""
        parts = [self._own(part) for part in _chunks(images)]
        return [torch.cat(bands) for bands in zip(*parts, strict=True)]

    def _own(self, part: ByteImages) -> list[Tensor]:
        found = []
        for band, mean, deviation in zip(_octaves(part), self.mean, self.deviation, strict=True):
            cells = ((band - mean) / deviation)[:, None]
            edge = max(1, cells.shape[-1] // PATCHES)
            found.append(functional.unfold(cells, edge, stride=edge).transpose(1, 2))
        return found

    def rows(self, images: ByteImages) -> list[Tensor]:
        """Octaves [N, D] of images, each cell about its mean over people, each octave of length 1."""
        parts = [
            [
                functional.normalize(((band - mean) / deviation).flatten(1), dim=1, eps=1e-6)
                for band, mean, deviation in zip(_octaves(part), self.mean, self.deviation, strict=True)
            ]
            for part in _chunks(images)
        ]
        return [torch.cat(bands) for bands in zip(*parts, strict=True)]


def row_length(images: ByteImages) -> int:
    """How many numbers all octaves of one image have together, at most."""
    return int(4 * min(LARGEST, images.shape[1]) ** 2 // 3)


def correlations(common: Common, people: ByteImages, released: ByteImages) -> Floats:
    """How people [N] and released images [M] correlate, [N, M, 2 B]: in each octave, whole and in the best patches."""
    found = []
    for own, other in zip(common.own(people), common.own(released), strict=True):
        products = torch.einsum("npd,mpd->nmp", own, other)
        whole = products.sum(dim=2) / _lengths(own, other, (1, 2)).clamp(min=1e-6)
        patches = products / _lengths(own, other, (2,)).clamp(min=1e-6)
        best = patches.topk(max(1, patches.shape[2] // 4), dim=2).values.mean(dim=2)
        found += [whole, best]
    return torch.stack(found, dim=2).numpy()


def _lengths(own: Tensor, other: Tensor, over: tuple[int, ...]) -> Tensor:
    lengths: Tensor = own.norm(dim=over)[:, None] * other.norm(dim=over)[None]
    return lengths


def _octaves(images: ByteImages) -> list[Tensor]:
    """Octaves [N, G, G] of detail: means of cells of each size, less those of cells twice as large."""
    x = torch.from_numpy(to_unit_range(np.asarray(images))).mean(dim=1, keepdim=True)
    side, found = _COARSEST, []
    soft = functional.adaptive_avg_pool2d(x, side)
    while 2 * side <= min(x.shape[-1], LARGEST):
        side *= 2
        cells = functional.adaptive_avg_pool2d(x, side)
        found.append((cells - functional.interpolate(soft, size=cells.shape[-2:], mode="nearest"))[:, 0])
        soft = cells
    return found


def _chunks(images: ByteImages) -> list[ByteImages]:
    size = rows_of_chunk(48 * int(np.prod(images.shape[1:])), len(images))
    return [images[at : at + size] for at in range(0, max(1, len(images)), size)]

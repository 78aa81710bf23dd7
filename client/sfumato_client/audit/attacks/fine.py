"""Fine structure of images: what thumbnails lose, such as the tree of vessels by which a retina is known.

An image is compared at its own resolution, or at 256 pixels a side where it is larger. What is wider than a 24th of the
side is taken away and what is left is divided by its local strength: brightness, contrast and soft shapes fall away,
lines and edges stay. What all people share, such as the rim of a retina's field, is taken away too: each pixel is about
its mean over people, in units of its deviation.

Comparing all pairs pixel by pixel would take hours. So each image has a *print* first: how much edge of each of four
directions there is in each cell of a grid of at most 32 a side (after Dalal and Triggs 2005). Prints do not see
polarity and bear a shift of part of a cell. The pairs that prints like best are compared finely: moved onto each other
by their cross-correlation, then by patches, of which the best quarter counts, so that a part that was copied is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_client.audit.attacks.base import Indices, rows_of_chunk
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages, to_unit_range

LARGEST = 256
_CELLS, _DIRECTIONS = 32, 4
_WIDEST = 24  # structure wider than this part of the side is taken away
_FAINT = 0.02  # RMS in [-1, 1] under which local strength is not raised further: grain is no structure
_PATCHES = 4  # a side
_REACH = 16  # pairs are moved by a part so large of the side at most
_ALIKE = 1e-4  # details nearer than this are the same
# float32 planes of an image that are held at once: of a pair of details, and of what details are made from
_PLANES, _DETAIL_PLANES = 24, 36


def prints(images: ByteImages, mirrored: bool = False) -> Floats:
    """Prints [N, 4 G G] of images [N, S, S(, 3)], or of their mirror images."""
    found = []
    for part in _chunks(images):
        values = detail(part)
        found.append(_print(values.flip(-1) if mirrored else values).numpy())
    return np.concatenate(found)


def centred(rows: Floats, middle: Floats) -> Floats:
    """Rows [N, D] about `middle` [D], of length 1; zeros stay zeros. Works in place."""
    rows -= middle
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


@dataclass(frozen=True, eq=False)
class Shared:
    """What people's details have in common: mean and deviation [R, R] of each pixel."""

    mean: Tensor
    deviation: Tensor

    def taken_from(self, details: Tensor) -> Tensor:
        """Details [N, R, R] of what an image has of its own."""
        return (details - self.mean) / self.deviation


def shared(images: ByteImages) -> Shared:
    """Mean and deviation of the details of images [N, S, S(, 3)], summed a chunk at a time."""
    total, squares = torch.zeros(()).double(), torch.zeros(()).double()
    for part in _chunks(images):
        values = detail(part).double()
        total, squares = total + values.sum(dim=0), squares + (values**2).sum(dim=0)
    mean = total / len(images)
    deviation = (squares / len(images) - mean**2).clamp(min=0).sqrt()
    # where hardly anything varies, as in the corners about a field, differences are grain
    return Shared(mean.float(), (deviation + 0.5 * deviation.mean() + 1e-6).float())


def likeness(first: Tensor, second: Tensor) -> Tensor:
    """How alike details [P, R, R] are, pair by pair [P]: -log(1 - c), c being the mean of the best patches."""
    side = first.shape[-1]
    moved = _moved(first, second)
    edge, margin = side // _PATCHES, max(1, side // _REACH)
    inside = torch.zeros(side, side)
    # what came around the edge when the second was moved is not compared
    inside[margin : side - margin, margin : side - margin] = 1.0
    products = _by_patch(first * moved * inside, edge)
    norms = _by_patch(first**2 * inside, edge).sqrt() * _by_patch(moved**2 * inside, edge).sqrt()
    scores = (products / norms.clamp(min=1e-6)).abs()
    best = scores.topk(max(1, scores.shape[1] // 4), dim=1).values.mean(dim=1)
    return -torch.log1p(-best.clamp(max=1.0 - _ALIKE))


def detail(images: ByteImages) -> Tensor:
    """Fine structure [N, R, R] float32 of images [N, S, S(, 3)], R at most 256; colours are averaged."""
    x = torch.from_numpy(to_unit_range(np.asarray(images))).mean(dim=1, keepdim=True)
    if x.shape[-1] > LARGEST:
        x = functional.interpolate(x, size=(LARGEST, LARGEST), mode="area")
    x = x - _soft(x, _WIDEST)
    strength = _soft(x**2, _WIDEST // 2).clamp(min=0).sqrt()
    return (x / strength.clamp(min=_FAINT))[:, 0]


def compared(
    people: ByteImages, candidates: ByteImages, rows: Indices, common: Shared, mirrored: bool = False
) -> Floats:
    """Likeness [N, k] of each of `people` [N, S, S(, 3)] to the candidates `rows` [N, k], mirrored where asked."""
    count = rows.shape[1]
    size = rows_of_chunk(_PLANES * 4 * count * min(LARGEST, people.shape[1]) ** 2, len(people))
    found = np.zeros(rows.shape, np.float32)
    for at in range(0, len(people), size):
        part = rows[at : at + size]
        needed, places = np.unique(part, return_inverse=True)
        others = common.taken_from(detail(candidates[needed]))
        others = others.flip(-1) if mirrored else others
        own = common.taken_from(detail(people[at : at + size]))
        for place in range(count):
            chosen = others[torch.from_numpy(places.reshape(part.shape)[:, place])]
            found[at : at + size, place] = likeness(own, chosen).numpy()
    return found


def _print(values: Tensor) -> Tensor:
    """Details [N, R, R] -> [N, 4 G G]: root of the gradient's energy by direction and cell."""
    grid = min(_CELLS, max(4, values.shape[-1] // 4))
    down = functional.pad(values[:, 2:] - values[:, :-2], (0, 0, 1, 1))
    across = functional.pad(values[:, :, 2:] - values[:, :, :-2], (1, 1))
    found = []
    for number in range(_DIRECTIONS):
        angle = torch.pi * number / _DIRECTIONS
        along = float(np.cos(angle)) * across + float(np.sin(angle)) * down
        found.append(functional.adaptive_avg_pool2d(along[:, None] ** 2, grid).clamp(min=0).sqrt().flatten(1))
    return torch.cat(found, dim=1)


def _moved(first: Tensor, second: Tensor) -> Tensor:
    """The second of each pair, moved by whole pixels to where it fits the first best, as far as a 16th of the side."""
    side = first.shape[-1]
    reach = max(1, side // _REACH)
    product = torch.fft.irfft2(torch.fft.rfft2(first) * torch.fft.rfft2(second).conj(), s=(side, side)).abs()
    steps = torch.arange(-reach, reach + 1)
    near = product[:, steps % side][:, :, steps % side].flatten(1)
    best = near.argmax(dim=1)
    down, across = steps[best // len(steps)], steps[best % len(steps)]
    place = torch.arange(side)
    rows, columns = (place[None] - down[:, None]) % side, (place[None] - across[:, None]) % side
    return second[torch.arange(len(second))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _by_patch(values: Tensor, edge: int) -> Tensor:
    return functional.avg_pool2d(values[:, None], edge).flatten(1)


def _soft(x: Tensor, parts: int) -> Tensor:
    """What [N, 1, R, R] is over parts of so many a side: means of cells, and lines between them."""
    cells = functional.adaptive_avg_pool2d(x, min(parts, x.shape[-1]))
    return functional.interpolate(cells, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _chunks(images: ByteImages) -> list[ByteImages]:
    size = rows_of_chunk(_DETAIL_PLANES * 4 * int(np.prod(images.shape[1:])), len(images))
    return [images[at : at + size] for at in range(0, max(1, len(images)), size)]

"""Nearest-real distances (distance to closest record; Yale et al. 2019), blind to the cheap ways of hiding a copy.

An image becomes a fingerprint of unit length: averaged over cells to a grid of at least 24 a side, blurred by a 3x3
binomial kernel, mean removed, norm one. The distance of two images is sqrt(2 - 2|c|), c being the fingerprints' inner
product: up to a constant the RMS per pixel of the standardised images. Why so: noise averages out; brightness and
contrast fall away; the absolute value undoes an inverted polarity (MONOCHROME1). Shifts by a 64th of the side and
mirror images are compared as well, and the smallest distance counts. Candidates and their control pass through the same
steps, so both sides pay what the invariances cost. Blind spots: rotation, zoom, a part copied into another image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sfumato_common.memory import budget, rows_at_once
from sfumato_common.types import ByteImages, to_unit_range

Floats = npt.NDArray[np.float32]

_GRID = 24  # the fewest cells a side: coarser than this, unrelated radiographs begin to look alike
_FLAT = 1e-3  # RMS contrast in [-1, 1] (an eighth of one grey level) under which an image counts as constant
_LARGEST_CHUNK = 2**28  # bytes
_CHUNK = 512  # queries compared at once, by their fingerprints, which are small: 512 x 10,000 distances are 20 MB


def nearest_distances(queries: ByteImages, real: ByteImages) -> Floats:
    """Distance [N] of each of `queries` [N, H, W] or [N, H, W, 3] to its nearest in `real`: 0 same, 1.41 unrelated.

    A constant image is unrelated to everything. Raises ValueError when `real` is empty or the sizes differ.
    """
    if len(real) == 0 or queries.shape[1:] != real.shape[1:]:
        raise ValueError("nearest distances need at least one real image, of the queries' size")
    step, targets = _step(real), targets_of(real)
    closest = np.zeros(len(queries), np.float32)
    for at in range(0, len(queries), _CHUNK):
        rows = slice(at, at + _CHUNK)
        for view in _views(np.asarray(queries[rows]), step):
            closest[rows] = np.maximum(closest[rows], np.abs(fingerprints(view) @ targets.T).max(1))
    return np.sqrt(np.maximum(2 - 2 * closest, 0)).astype(np.float32)


def patient_distances(queries: ByteImages, real: ByteImages, patients: npt.NDArray[np.int64]) -> Floats:
    """`nearest_distances` [N, P] to each of P patients apart; `patients` [M] in 0 .. P - 1 owns the real images."""
    order = np.argsort(patients, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(patients[order]) > 0])
    step, targets = _step(real), targets_of(np.asarray(real[order]))
    closest = np.zeros((len(queries), len(starts)), np.float32)
    for at in range(0, len(queries), _CHUNK):
        rows = slice(at, at + _CHUNK)
        for view in _views(np.asarray(queries[rows]), step):
            products = np.abs(fingerprints(view) @ targets.T)
            closest[rows] = np.maximum(closest[rows], np.maximum.reduceat(products, starts, axis=1))
    return np.sqrt(np.maximum(2 - 2 * closest, 0)).astype(np.float32)


def targets_of(real: ByteImages) -> Floats:
    """What real images [N, H, W(, 3)] are compared by [N, D]: kept, they need not be read for each query anew."""
    step = _step(real)
    return fingerprints(_window(real, step, step, step))


def target_distances(query: ByteImages, targets: Floats) -> Floats:
    """Distance [N] of one query [1, H, W(, 3)] to each of N `targets_of` images of its size, as `nearest_distances`."""
    views = np.concatenate([fingerprints(view) for view in _views(np.asarray(query), _step(query))])
    closest = np.abs(targets @ views.T).max(axis=1)
    return np.asarray(np.sqrt(np.maximum(2 - 2 * closest, 0)), np.float32)


def is_flat(images: ByteImages) -> npt.NDArray[np.bool_]:
    """True [N] where an image shows nothing: its fingerprint is the zero vector."""
    return np.asarray(~fingerprints(images).any(1)) if len(images) else np.zeros(0, np.bool_)


def fingerprints(images: ByteImages) -> Floats:
    """Unit-length fingerprints [N, D] of images [N, H, W] or [N, H, W, 3]; zero vectors for constant images."""
    rows = images_at_once(images)
    parts = [_fingerprints(images[first : first + rows]) for first in range(0, max(1, len(images)), rows)]
    return np.concatenate(parts)


def images_at_once(images: ByteImages) -> int:
    """How many images are held at full size in a few planes of float32: the pixels, and their copy by channel.

    256 MiB of them, or what memory allows if less: larger chunks are no faster.
    """
    size = 12 * int(np.prod(images.shape[1:]))
    return rows_at_once(size * max(1, budget() // _LARGEST_CHUNK), max(1, len(images)))


def _fingerprints(images: ByteImages) -> Floats:
    pixels = to_unit_range(np.asarray(images))  # [N, C, H, W]
    count, channels, height, width = pixels.shape
    factor = max((f for f in range(1, height + 1) if height % f == 0 == width % f and height // f >= _GRID), default=1)
    cells = pixels.reshape(count, channels, height // factor, factor, width // factor, factor).mean((3, 5))
    cells = _binomial(_binomial(cells, 2), 3)
    flat = cells.reshape(count, -1)  # [N, D]
    flat = flat - flat.mean(1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    varied = norms > _FLAT * np.sqrt(flat.shape[1])
    return np.where(varied, flat / np.where(varied, norms, 1), 0).astype(np.float32)


def _binomial(cells: Floats, axis: int) -> Floats:
    """[1, 2, 1] / 4 along `axis`, edges repeated."""
    padded = np.pad(cells, [(int(at == axis),) * 2 for at in range(cells.ndim)], mode="edge")
    left, middle, right = (np.take(padded, np.arange(at, at + cells.shape[axis]), axis) for at in range(3))
    return np.asarray((left + 2 * middle + right) / 4, np.float32)


def _step(images: ByteImages) -> int:
    """The shift compared, in pixels: a 64th of the side, at least one."""
    return max(1, int(images.shape[1]) // 64)


def _window(images: ByteImages, top: int, left: int, margin: int) -> ByteImages:
    """The images less `margin` on each side, moved so that their corner is at (top, left): no edge is invented."""
    height, width = images.shape[1] - 2 * margin, images.shape[2] - 2 * margin
    return np.asarray(images[:, top : top + height, left : left + width])


def _views(images: ByteImages, step: int) -> Iterator[ByteImages]:
    """The 18 views of each image that are compared: nine shifts, each plain and mirrored."""
    for view in (images, images[:, :, ::-1]):
        for top in (0, step, 2 * step):
            for left in (0, step, 2 * step):
                yield _window(view, top, left, step)

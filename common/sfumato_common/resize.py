"""Exact area-average resizing: every output pixel is the mean of the source area it covers (a box filter).

One function for the phantom, for every reader and for whoever draws contact sheets, so that all images of a study went
through the same arithmetic. Separable: out = R_h @ image @ R_w^T with small cached dense matrices, whose rows sum to 1.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sfumato_common.types import AnyArray

FloatImage = npt.NDArray[np.float32]


@lru_cache(maxsize=256)
def area_matrix(source: int, target: int) -> FloatImage:
    """The [target, source] matrix of overlaps: row i averages source interval [i, i + 1) * source / target."""
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    overlap = np.clip(high - low, 0.0, None)
    matrix: FloatImage = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def area_resize(image: AnyArray, height: int, width: int) -> FloatImage:
    """Image [H, W] or [H, W, C] -> float32 [height, width(, C)] by exact area averaging, in the image's own units."""
    rows, columns = area_matrix(image.shape[0], height), area_matrix(image.shape[1], width)
    floats = np.asarray(image, dtype=np.float32)
    if floats.ndim == 2:
        # the cheaper product first: (h x H)(H x W) then (h x W)(W x w)
        return np.ascontiguousarray((rows @ floats) @ columns.T)
    planes = [(rows @ np.ascontiguousarray(floats[..., c])) @ columns.T for c in range(floats.shape[2])]
    return np.ascontiguousarray(np.stack(planes, axis=-1))


def fit_square(image: AnyArray, size: int) -> FloatImage:
    """Image [H, W(, C)] -> float32 [size, size(, C)]: longer side scaled to `size`, centred, the rest black (0).

    Padding rather than cropping keeps the whole anatomy; 0 is the value of unexposed film after ingest.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    inner_height, inner_width = max(1, round(height * size / longer)), max(1, round(width * size / longer))
    inner = area_resize(image, inner_height, inner_width)
    if inner.shape[:2] == (size, size):
        return inner
    square = np.zeros((size, size, *image.shape[2:]), dtype=np.float32)
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    square[top : top + inner_height, left : left + inner_width] = inner
    return square

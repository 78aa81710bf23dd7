"""Near-duplicates among images by a public measure of images alone: prints of 16 x 16 cells (thumbnail matching).

A print is an image less its margin, averaged over 16 x 16 cells, its mean removed, its norm one: noise averages out,
brightness and contrast fall away. The distance of two images is the least one between the print of the one and those of
nine views of the other, moved by a pixel. 0 is the same picture, 1.41 an unrelated one. Colours
are averaged. Nothing here knows of a site or a patient: `make bench NAME=near_duplicates` shows on public images what
the limit finds and what it spares.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sfumato_common.imaging import area_matrix
from sfumato_common.types import ByteImages

Floats = npt.NDArray[np.float32]
# Below the least distance among phantom patients at 28 to 128 px, .11 of 1,500 with radiographs and .07 of 200 with
# fundi, and above what noise of 5 grey levels, a shift by a pixel or 20 grey levels more light make.
LIMIT = 0.06
# what a generator of low variety makes is all alike: two of its images are near below this part of their usual distance
PART = 1 / 8
VIEWS = 9
_GRID, _CENTRAL = 16, 4
_FLAT = 1e-3  # deviation of the cells, as a share of the whole range, below which an image shows nothing


def views(images: ByteImages) -> Floats:
    """Prints [N, 9, D] of the nine views of images [N, S, S] or [N, S, S, 3]; zero vectors where one shows nothing."""
    grey = np.asarray(images, np.float32) / np.float32(np.iinfo(images.dtype).max)
    grey = grey.mean(-1) if grey.ndim == 4 else grey
    moved = _moved(grey.shape[1])
    side = len(moved) // 3
    cells = (moved @ grey @ moved.T).reshape(len(grey), 3, side, 3, side).swapaxes(2, 3)
    found: Floats = np.ascontiguousarray(cells).reshape(len(grey), VIEWS, side * side)
    found -= found.mean(-1, keepdims=True)
    norms = np.linalg.norm(found, axis=-1, keepdims=True)
    varied = norms > _FLAT * side
    return np.asarray(np.where(varied, found / np.where(varied, norms, 1), 0), np.float32)


def prints(found: Floats) -> Floats:
    """The images' own prints [N, D] among their views [N, 9, D]."""
    return found[:, _CENTRAL]


def distances(found: Floats, other: Floats) -> Floats:
    """Distance [M] of one image by its views [9, D] to others by their prints [M, D]; 1.41 to what shows nothing."""
    whole = np.asarray(other, np.float32)  # kept in half precision: of a norm that is not quite one
    squares = 1 + (whole**2).sum(1) - 2 * (whole @ found.T).max(1)
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)


def usual_distance(of: Floats) -> float:
    """Median distance of prints [N, D], each to the one half of the list away; infinite for one print."""
    if len(of) < 2:
        return float("inf")
    return float(np.median(np.linalg.norm(of - np.roll(of, len(of) // 2, axis=0), axis=1)))


@lru_cache(maxsize=8)
def _moved(side: int) -> Floats:
    """[3 * cells, side]: the cells of a window at each of its three places, one above the other."""
    inner = side - 2
    cells = area_matrix(inner, min(_GRID, inner))
    found = np.zeros((3 * len(cells), side), np.float32)
    for place in range(3):
        found[place * len(cells) : (place + 1) * len(cells), place : place + inner] = cells
    return found

"""How far two sets of images are apart in the SHAPE of their detail: lines and edges against noise of the same power.

Frechet distances in random or trained features answer to exposure and to how much detail there is more than to what it
shows: ribs or noise. A line makes the gradients around it agree, whatever its contrast; noise does not. So an image
becomes its local orientations: coherence and direction of the structure tensor (Foerstner and Guelch 1987; Bigun and
Granlund 1987) of its fine bands, by place. Sets are compared by their energy distance (Szekely and Rizzo 2013).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from sfumato_common.types import AnyArray, to_unit_range

Float64 = npt.NDArray[np.float64]
# deviations, in pixels, of the Gaussian that bounds a band from above and of its tensor's window
_SCALES = ((0.7, 2.0), (1.4, 4.0))
_GRID = 4
_BATCH = 256
# the gradient energy of what rounding to 255 levels leaves of a flat image: detail below it has no direction
_ROUNDING = 2.0 * (2.0 / 255.0) ** 2 / 12.0


def structure_features(images: AnyArray) -> Float64:
    """Features [N, 96] of integer images [N, S, S] or [N, S, S, 3]: in [-1, 1], blind to brightness and contrast.

    On a 4 x 4 grid, for each of two bands: coherence of the local tensor, and its product with cosine and sine of twice
    the direction. Colour channels' tensors are added (Di Zenzo 1986).
    """
    parts = [to_unit_range(images[first : first + _BATCH]) for first in range(0, len(images), _BATCH)]
    return np.concatenate([np.hstack([_orientations(x, *scale) for scale in _SCALES]) for x in parts])


def _orientations(x: npt.NDArray[np.float32], scale: float, window: float) -> Float64:
    """Means by cell [N, 3 x 16] of coherence, and of coherence times cosine and sine of twice the direction."""
    fine = _smooth(x, scale) - _smooth(x, 2.0 * scale)
    down, right = np.gradient(fine, axis=(2, 3))
    vertical, horizontal, mixed = (
        _smooth(product.sum(axis=1, keepdims=True), window) for product in (down * down, right * right, down * right)
    )
    total = vertical + horizontal + _ROUNDING
    cosine, sine = (horizontal - vertical) / total, 2.0 * mixed / total
    cells = [_by_cell(value[:, 0]) for value in (np.hypot(cosine, sine), cosine, sine)]
    return np.hstack(cells)


def _smooth(x: npt.NDArray[np.float32], deviation: float) -> npt.NDArray[np.float32]:
    return np.asarray(gaussian_filter(x, (0.0, 0.0, deviation, deviation), mode="reflect"))


def _by_cell(values: npt.NDArray[np.float32]) -> Float64:
    side = values.shape[1] // _GRID
    cells = values[:, : side * _GRID, : side * _GRID].reshape(len(values), _GRID, side, _GRID, side)
    return np.asarray(cells.mean(axis=(2, 4)).reshape(len(values), -1), dtype=np.float64)


def structure_distance(images: AnyArray, real: AnyArray) -> float:
    """Energy distance of two sets' `structure_features` in parts of its largest: about 0 for one distribution, up to 1.

    Unbiased (a U-statistic), so that two draws of one distribution give about 0 whatever their sizes, and negative half
    of the time. Raises ValueError when a set has fewer than two images.
    """
    first, second = structure_features(images), structure_features(real)
    return energy_coefficient(first, second)


def energy_coefficient(first: Float64, second: Float64) -> float:
    """(2 E|X-Y| - E|X-X'| - E|Y-Y'|) / 2 E|X-Y| of features [N, d] and [M, d] (Szekely and Rizzo 2013, section 6)."""
    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise ValueError("an energy distance needs at least two records in each set")
    across = cdist(first, second).mean()
    if across == 0.0:
        return 0.0
    within = cdist(first, first).sum() / (n * (n - 1)) + cdist(second, second).sum() / (m * (m - 1))
    return float(1.0 - within / (2.0 * across))

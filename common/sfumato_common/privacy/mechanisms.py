"""The mechanism everything is released by: the Gaussian one, on a public grid."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sfumato_common.privacy.noise import NoiseSource
from sfumato_common.types import FloatArray

_GRID_BITS = 20


def grid_of(sensitivity: float) -> float:
    """The public grid width for a sensitivity: the power of two at or below it, times 2^-20 (exact in binary)."""
    return 2.0 ** (math.floor(math.log2(sensitivity)) - _GRID_BITS)


def gaussian_release(
    value: FloatArray, sensitivity: float, noise_multiplier: float, noise: NoiseSource
) -> npt.NDArray[np.float64]:
    """Gaussian mechanism (Dwork and Roth 2014, A.1) whose output lies on a fixed public grid.

    Plain floating-point noise leaves fingerprints in the low bits (Mironov 2012). So `value` is rounded to the grid g,
    the noise is rounded to g on its own, and the sum is exact: the result is a post-processing of the real-valued
    mechanism. Rounding may move two neighbouring values apart by at most g in each of the d coordinates, hence the
    sensitivity that the noise is scaled to is `sensitivity + g sqrt(d)`. Clipping is the caller's.
    Raises ValueError when a value is not finite or a parameter is not positive.
    """
    if not (sensitivity > 0 and noise_multiplier > 0 and math.isfinite(sensitivity * noise_multiplier)):
        raise ValueError("sensitivity and noise multiplier must be finite and positive")
    if not np.isfinite(value).all():
        raise ValueError("a value to be released is not finite; clip each contribution first")
    grid = grid_of(sensitivity)
    inflated = sensitivity + grid * math.sqrt(value.size)
    cells = np.rint(np.asarray(value, dtype=np.float64) / grid)
    cells += np.rint(noise.normal(value.shape, noise_multiplier * inflated) / grid)
    return cells * grid

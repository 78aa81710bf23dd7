"""The mechanisms everything is released by: the Gaussian and the Laplace one, on a public grid."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.types import FloatArray

Float64 = npt.NDArray[np.float64]
_GRID_BITS = 20
LARGEST_DRAW = 10.0  # in standard deviations; `noise.py` draws none beyond 9.42
_LARGEST_LAPLACE = 45.0  # in scales; `noise.py` draws none beyond 44.4


def grid_of(sensitivity: float) -> float:
    """The public grid width for a sensitivity: the power of two at or below it, times 2^-20 (exact in binary)."""
    return 2.0 ** (math.floor(math.log2(sensitivity)) - _GRID_BITS)


def gaussian_release(value: FloatArray, sensitivity: float, noise_multiplier: float, noise: NoiseSource) -> Float64:
    """Gaussian mechanism (Dwork and Roth 2014, A.1) whose output lies on a fixed public grid.

    Plain floating-point noise leaves fingerprints in the low bits (Mironov 2012). So `value` is rounded to the grid g,
    the noise is rounded to g on its own, and the sum is exact: the result is a post-processing of the real-valued
    mechanism. Rounding may move two neighbouring values apart by at most g in each of the d coordinates, hence the
    sensitivity that the noise is scaled to is `sensitivity + g sqrt(d)`: up to 0.07 % more for 0.43 million
    coordinates, 0.16 % for 2.76 million. Clipping is the caller's, and `sensitivity` must cover the rounding errors of
    the caller's own sum (Casacuberta et al. 2022).

    What is left, for noise multiplier z: a float64 normal lands in another cell than its real-valued twin with
    probability at most 8e-9 z a coordinate (measured: 4e-10 z). A cell's probability is then off by a factor within
    1 +- 1.7e-8 z (root mean square). If every error had the worst sign, one release of d coordinates would add
    1.4e-8 sqrt(d) to epsilon in the mean, with a standard deviation of 3.4e-8 z sqrt(d): 1e-5 and 2.3e-5 z for 0.43
    million coordinates. The cut at 9.42 standard deviations adds 4.6e-21 d to delta.

    `value` is a plain float32 or float64 array of any shape. Raises ValueError for another kind of array (a masked one
    hides what is not finite), a value that is not finite, and parameters or values beyond what the grid holds exactly,
    2^32 times the sensitivity's power of two.
    """
    sensitivity, noise_multiplier = float(sensitivity), float(noise_multiplier)
    if not (sensitivity > 0 and noise_multiplier > 0 and math.isfinite(sensitivity * noise_multiplier)):
        raise ValueError("sensitivity and noise multiplier must be finite and positive")
    peak = peak_of(value)
    grid = grid_of(sensitivity)
    scale = noise_multiplier * (sensitivity + grid * math.sqrt(value.size))
    require_exact(grid, peak, LARGEST_DRAW * scale)
    return _on_grid(value, noise.normal(value.shape, scale), grid)


def laplace_release(value: FloatArray, sensitivity: float, epsilon: float, noise: NoiseSource) -> Float64:
    """Laplace mechanism (Dwork et al. 2006) on one vector of `sensitivity` in L1, or rows of vectors [N, D], each so.

    On a grid as `gaussian_release` is, and for the same reason. Rounding may move two neighbouring vectors apart by the
    grid's width g in each coordinate, so noise is scaled to (sensitivity + g D) / epsilon, 0.4 % more for D = 4096.

    What is left: a draw takes one of 2^63 sizes, and far out a cell holds few of them, or none. That is at most
    2.3e-13 / epsilon of a coordinate's mass, and adds 2.3e-13 D / epsilon to delta; the cut at 44.4 scales is inside.
    Elsewhere rounding puts a cell's probability off by a factor within 1 +- 1e-9 / epsilon, as for normals.

    Raises ValueError as `gaussian_release` does.
    """
    sensitivity, epsilon = float(sensitivity), float(epsilon)
    if not (sensitivity > 0 and epsilon > 0 and math.isfinite(sensitivity / epsilon)):
        raise ValueError("sensitivity and epsilon must be finite and positive")
    peak = peak_of(value)
    grid = grid_of(sensitivity)
    scale = (sensitivity + grid * (value.shape[-1] if value.ndim else 1)) / epsilon
    require_exact(grid, peak, _LARGEST_LAPLACE * scale)
    return _on_grid(value, noise.laplace(value.shape, scale), grid)


def require_exact(grid: float, peak: float, farthest: float) -> None:
    """Raise ValueError unless values up to `peak` and noise up to `farthest` add up exactly on the grid."""
    limit = 2.0**52 * grid  # two summands below it: a sum below 2^53 cells, where every integer is a float64
    if grid < np.finfo(np.float64).tiny or not math.isfinite(2.0 * limit):
        raise ValueError("the sensitivity is too small or too large for exact arithmetic; rescale what is released")
    if peak >= limit or farthest >= limit:
        raise ValueError("a value or its noise is too large for the grid; clip each contribution first")


def _on_grid(value: FloatArray, drawn: Float64, grid: float) -> Float64:
    """The exact sum of value and noise, each rounded to the grid on its own."""
    if drawn.shape != value.shape:
        raise ValueError("the noise source must draw one value for each coordinate")
    per_cell = 1.0 / grid  # exact, as g is a power of two
    cells = to_cells(value, per_cell)
    cells += to_cells(drawn, per_cell)
    cells += 0.0  # -0.0 becomes 0.0: a sum's sign below half a cell would show through noise that rounds to zero
    cells *= grid
    return cells


def to_cells(value: FloatArray, per_cell: float) -> npt.NDArray[np.float64]:
    """The nearest grid point of each element, counted in cells: whole numbers."""
    cells = np.empty(value.shape)
    np.multiply(value, per_cell, out=cells)
    return np.rint(cells, out=cells)


def peak_of(value: FloatArray) -> float:
    """Largest magnitude in a plain float array, 0 for an empty one. Raises ValueError as `gaussian_release` says."""
    if type(value) is not np.ndarray or value.dtype not in (np.float32, np.float64):
        raise ValueError("a value to be released must be a plain float32 or float64 array, no subclass")
    peak = max(float(value.max(initial=0.0)), -float(value.min(initial=0.0)))
    if not math.isfinite(peak):  # numpy's minimum and maximum are NaN when any element is
        raise ValueError("a value to be released is not finite; clip each contribution first")
    return peak

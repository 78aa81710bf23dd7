"""The two mechanisms everything is released by: the Gaussian one, on a grid, and a noisy histogram built on it."""

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


def noisy_score_histogram(
    scores: FloatArray,
    labels: npt.NDArray[np.int64],
    bins: int,
    classes: int,
    noise_multiplier: float,
    noise: NoiseSource,
) -> npt.NDArray[np.float32]:
    """Noisy counts [classes, bins] of patients' classifier scores in [0, 1]; AUC is later read off them.

    `scores` and `labels` are [P], one entry a patient (the caller reduces a patient's images to one score), so adding
    or removing a patient changes one cell by one: L2 sensitivity 1. A score that is not a number counts as 0.
    Raises ValueError when the shapes differ or a label is out of range.
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError("scores and labels must be [P], one entry a patient")
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError("a label is outside the plan's classes")
    clipped = np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)
    column = np.minimum((clipped * bins).astype(np.int64), bins - 1)
    counts = np.zeros((classes, bins), dtype=np.float64)
    np.add.at(counts, (labels, column), 1.0)
    return gaussian_release(counts, 1.0, noise_multiplier, noise).astype(np.float32)

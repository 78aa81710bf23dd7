"""Whether a classifier's probabilities mean what they say: expected calibration error and Brier score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def calibration_error(probabilities: Float64, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3) of probabilities [N, K] and labels [N].

    Records are put in `bins` equal bins by the probability of the class they are given; the error is the mean gap
    between that probability and the share that is right, weighted by records.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    cell = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(cell, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier_score(probabilities: Float64, labels: Labels) -> float:
    """Mean squared distance of probabilities [N, K] to the labels [N] as unit vectors (Brier 1950): 0 best, 2 worst."""
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1).mean())

"""How much of a set is repetition: its effective number of images, and its nearest neighbours within itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

Float64 = npt.NDArray[np.float64]


def vendi_score(features: Float64, scale: float) -> float:
    """Effective number of records of features [N, d] (Vendi score, Friedman and Dieng 2023, definition 1): 1 to N.

    The exponential of the entropy of the eigenvalues of K / N, K a Gaussian kernel of width `scale`, in units of
    the features. Compare sets of one size under one scale only.
    """
    kernel = np.exp(-cdist(features, features, "sqeuclidean") / (2.0 * scale**2))
    values = np.linalg.eigvalsh(kernel / len(features))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def usual_distance(features: Float64) -> float:
    """Median distance of two records of features [N, d], the scale by which `vendi_score` compares sets."""
    distances = cdist(features, features)
    return float(max(np.median(distances[np.triu_indices(len(features), 1)]), 1e-12))


def apart_distances(features: Float64, patients: npt.NDArray[np.int64]) -> Float64:
    """Distance [N] of each record of features [N, d] to the nearest one of another patient of `patients` [N].

    Two films of one person are alike, and are no repetition. inf where all records are one patient's.
    """
    distances = cdist(features, features)
    distances[patients[:, None] == patients] = np.inf
    return np.asarray(distances.min(axis=1))

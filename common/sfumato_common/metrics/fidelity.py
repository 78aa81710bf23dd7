"""How far two sets of images are apart as distributions of features: Frechet and kernel distances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def frechet_distance(first: Float64, second: Float64) -> float:
    """Squared Frechet distance of Gaussians with the moments of features [N, d], [M, d] (Heusel et al. 2017, eq. 6).

    In squared feature units. Biased upwards by about (1/N + 1/M) tr(covariance): compare sets of equal size only.
    Raises ValueError when a set has fewer than two records.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a Frechet distance needs at least two records in each set")
    difference = first.mean(axis=0) - second.mean(axis=0)
    covariance, other = np.atleast_2d(np.cov(first, rowvar=False)), np.atleast_2d(np.cov(second, rowvar=False))
    # tr((A B)^1/2) = tr((A^1/2 B A^1/2)^1/2), which stays symmetric where scipy's sqrtm of A B turns complex
    root = _root(covariance)
    cross = np.linalg.eigvalsh(root @ other @ root)
    trace = np.trace(covariance) + np.trace(other) - 2.0 * np.sqrt(np.maximum(cross, 0.0)).sum()
    return float(max(0.0, difference @ difference + trace))


def _root(matrix: Float64) -> Float64:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def kernel_distance(first: Float64, second: Float64) -> float:
    """KID (Binkowski et al. 2018, section 4): unbiased squared MMD of features [N, d], [M, d] under (x.y / d + 1)^3.

    Unbiased, so about 0 (and negative half of the time) for two draws of one distribution, whatever their sizes.
    Raises ValueError when a set has fewer than two records.
    """
    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise ValueError("a kernel distance needs at least two records in each set")
    within, inside, across = _cubic(first, first), _cubic(second, second), _cubic(first, second)
    own = (within.sum() - np.trace(within)) / (n * (n - 1))
    other = (inside.sum() - np.trace(inside)) / (m * (m - 1))
    return float(own + other - 2.0 * across.mean())


def drawn_kernel_distances(first: Float64, second: Float64, draws: Iterable[tuple[Labels, Labels]]) -> Iterator[float]:
    """`kernel_distance` of samples drawn with replacement, by the rows of both sets [N], [M] that each draw holds.

    Pairs of a record with itself are left out however often it was drawn: they would bias the distance upwards.
    """
    within, inside, across = _cubic(first, first), _cubic(second, second), _cubic(first, second)
    np.fill_diagonal(within, 0.0)
    np.fill_diagonal(inside, 0.0)
    for rows, others in draws:
        w = np.bincount(rows, minlength=len(first)).astype(np.float64)
        v = np.bincount(others, minlength=len(second)).astype(np.float64)
        own = w @ within @ w / (w.sum() ** 2 - (w**2).sum())
        other = v @ inside @ v / (v.sum() ** 2 - (v**2).sum())
        yield float(own + other - 2.0 * (w @ across @ v) / (w.sum() * v.sum()))


def _cubic(first: Float64, second: Float64) -> Float64:
    return np.asarray((first @ second.T / first.shape[1] + 1.0) ** 3)

"""Shares of bins from noisy ones, by the known deviation of their noise: post-processing of what was released."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.fft import dct, dctn, idct, idctn
from scipy.special import expit
from scipy.stats import beta, norm

Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_SMOOTHNESS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
_STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# departures from a shape: none, or normal cosines of these variances, less of the faster ones by these rates
_NO_DEPARTURE = 0.3  # its prior probability
_VARIANCES, _RATES = 10.0 ** np.array([-6.0, -4.5, -3.5, -2.5, -1.5]), (0.0, 0.01, 0.1)
_PRIOR_SHAPE = 0.5  # prior probability of the shape that a trained network has


def estimate_shares(noisy: Float64, deviation: float, prior: Float64, ordered: Sequence[bool]) -> Float64:
    """Shares from noisy ones, of any shape: the difference to `prior` is shrunk as far as its noise asks for.

    In cosines along every axis, of which those of an `ordered` one are shrunk the more the faster they are. Of this
    family of linear filters the one of least estimated risk is taken (Stein 1981). A gap in a single column's shares,
    or in its sum over a pair's other column, is noise alone: `prior` has these right. Projected onto the simplex.
    """
    gap = dctn(noisy - prior, norm="ortho")
    waves = np.indices(gap.shape)
    gap[(waves == 0).any(axis=0)] = 0.0
    kept = (waves > 0).all(axis=0)
    speed = sum((axis**2 - 1.0) * is_ordered for axis, is_ordered in zip(waves, ordered, strict=True)) * np.ones(
        gap.shape
    )
    best, found = np.inf, np.zeros(gap.shape)
    for smoothness in _SMOOTHNESS if any(ordered) else (0.0,):
        passed = kept / (1.0 + (smoothness * speed) ** 2)
        for strength in _STRENGTHS:
            guess = strength * passed * gap
            risk = float(np.sum((gap - guess) ** 2) + 2.0 * deviation**2 * strength * passed.sum())
            if risk < best:
                best, found = risk, guess
    return project_simplex((prior + idctn(found, norm="ortho")).ravel()).reshape(prior.shape)


def project_simplex(values: Float64) -> Float64:
    """The nearest shares, not negative and of sum 1 (Duchi et al. 2008)."""
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - 1.0) / np.arange(1, len(values) + 1)
    last = int(np.flatnonzero(falling > excess)[-1])
    return np.asarray(np.maximum(values - excess[last], 0.0))


def expected_shares(noisy: Float64, deviation: float, missing: bool, prior: Float64 | None) -> Float64:
    """Shares [B] of an ordered column's bins, an empty one last: their mean given noisy ones (empirical Bayes).

    Before the noise a column is one of public shapes, or like `prior` [B], with a smooth departure: normal in cosines,
    so that what each says of the noisy shares, and the mean given both, are closed forms (Wahba 1978).
    """
    empty = _expected_share(float(noisy[-1]), deviation) if missing else 0.0
    values = len(noisy) - missing
    shapes, weights = public_shapes(values), np.full(len(public_shapes(values)), 1.0)
    if prior is not None:
        own = prior[:values] / max(float(prior[:values].sum()), 1e-9)
        shapes = np.concatenate([shapes, own[None]])
        weights = np.append(weights * (1.0 - _PRIOR_SHAPE) / len(weights), _PRIOR_SHAPE)
    found = _mean_given(noisy[:values], deviation, (1.0 - empty) * shapes, weights)
    found = (1.0 - empty) * project_simplex(found / (1.0 - empty))
    return np.append(found, empty) if missing else found


@cache
def public_shapes(bins: int) -> Float64:
    """Shares [S, bins] that columns of ordered values often have.

    Uniform; beta by mean and concentration; normal ones of which the range shows a part.
    """
    ends = np.arange(bins + 1) / bins
    means, sums = expit(np.linspace(-4.5, 4.5, 37)), 2.0 ** np.arange(0.0, 9.01, 0.75)
    first, second = (np.outer(side, sums).ravel()[:, None] for side in (means, 1.0 - means))
    centres, widths = np.meshgrid(np.linspace(-0.3, 1.3, 25), 0.03 * 1.4 ** np.arange(8))
    normal = np.diff(norm.cdf(ends, centres.ravel()[:, None], widths.ravel()[:, None]), axis=1)
    found = np.concatenate([np.full((1, bins), 1.0 / bins), np.diff(beta.cdf(ends, first, second), axis=1), normal])
    within = found.sum(axis=1)
    return np.asarray(found[within > 1e-6] / within[within > 1e-6, None])


def _mean_given(noisy: Float64, deviation: float, shapes: Float64, weights: Float64) -> Float64:
    """Mean of shares [B] given noisy ones, where they are one of `shapes` [S, B] by `weights` [S], and a departure."""
    gaps = dct(noisy - shapes, norm="ortho", axis=1)[:, 1:]
    speed = np.arange(1.0, len(noisy)) ** 2 - 1.0
    some = [variance / (1.0 + (rate * speed) ** 2) for variance in _VARIANCES for rate in _RATES]
    departures = np.stack([np.zeros(len(speed)), *some])
    spread = deviation**2 + departures
    likely = -0.5 * (gaps**2 @ (1.0 / spread).T + np.log(spread).sum(axis=1))
    likely += np.log(weights)[:, None]
    likely[:, 0] += np.log(_NO_DEPARTURE)
    likely[:, 1:] += np.log((1.0 - _NO_DEPARTURE) / len(some))
    given = np.exp(likely - likely.max())
    given /= given.sum()
    cosines = np.append(0.0, (given @ (departures / spread) * gaps).sum(axis=0))
    return np.asarray(given.sum(axis=1) @ shapes + idct(cosines, norm="ortho"))


def _expected_share(noisy: float, deviation: float) -> float:
    """Mean of one share given a noisy one; small ones are likelier beforehand."""
    shares = np.linspace(0.0, 0.99, 100) ** 2
    far = (noisy - shares) ** 2 / (2.0 * deviation**2)
    given = np.exp(far.min() - far)
    return float(given @ shares / given.sum())

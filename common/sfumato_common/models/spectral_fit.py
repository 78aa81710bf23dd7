"""From noisy spectral releases to a Gaussian model: denoising by random-matrix thresholds (all post-processing).

What the noise hides is filled from the public power law, never guessed from data: class means are shrunk towards
their common mean, covariances to a few clear directions plus the power law's diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sfumato_common.config.plan import Plan
from sfumato_common.models.spectral import MOMENT_WEIGHT, SUM_WEIGHT, Float64, Layout, class_means
from sfumato_common.types import Arrays

# No class is drawn more rarely than this, whatever the noise did to its count.
SMALLEST_SHARE = 0.025
# The power law is believed to within half its level before the release is looked at.
LEVEL_SPREAD = 0.5
# A class may differ from the pooled covariance only in directions this far outside the noise's spectrum.
DEVIATION_MARGIN = 1.5
# Too narrow a Gaussian costs far more likelihood than too wide a one, so levels are kept from falling much.
LEVEL_RANGE = (0.5, 4.0)
_RING_EDGES = (3.0, 6.0, 9.0, 13.0)


def fit_release(plan: Plan, by_site: Mapping[str, Arrays]) -> dict[str, npt.NDArray[np.float32]]:
    """Parameters of the model from one noised release a site: `sums` [K, 1 + d], `moments` [K, d(d+1)/2].

    Gives shares [K], mean [K, d], factor [K, d, d] (symmetric root of the covariance, in feature units), signal
    [K, d, d] (projector on the directions that the release showed, the others being filled from the power law) and tail
    [K] (amplitude of the frequencies above the band, in units of the power law). The symmetric root is unique, and
    it is sent rather than recomputed, so that every machine starts from the same numbers.
    """
    layout, releases = Layout.of(plan), [by_site[site] for site in sorted(by_site)]
    sigma = plan.spectral.noise_multiplier * math.sqrt(len(releases))
    counts, means = class_means(layout, _pooled(releases, "sums"), sigma)
    shares = counts / counts.sum()
    unit = layout.spread_radius**2 / (MOMENT_WEIGHT * counts)
    within = symmetric(_pooled(releases, "moments"), layout.features) * unit[:, None, None]
    raw = within + _between(layout, releases, counts, means, plan.spectral.noise_multiplier)
    covariances, signals, level = denoise_classes(raw, shares, sigma * unit, layout)
    mean_noise = sigma * layout.mean_radius / (SUM_WEIGHT * counts)
    floored = np.maximum(shares, SMALLEST_SHARE)
    fitted = {
        "shares": floored / floored.sum(),
        "mean": shrink_means(means, shares, mean_noise, rings(layout)),
        "factor": np.stack([symmetric_root(covariance) for covariance in covariances]),
        "signal": signals,
        "tail": np.full(layout.classes, math.sqrt(level)),
    }
    return {name: value.astype(np.float32) for name, value in fitted.items()}


def _pooled(releases: Sequence[Arrays], name: str) -> Float64:
    return np.asarray(np.sum([release[name].astype(np.float64) for release in releases], axis=0))


def _between(layout: Layout, releases: Sequence[Arrays], counts: Float64, means: Float64, sigma: float) -> Float64:
    """Scatter of the sites' released means about the pooled ones, [K, d, d], less what the noise alone would give."""
    scatter = np.zeros((layout.classes, layout.features, layout.features))
    for release in releases:
        site_counts, site_means = class_means(layout, release["sums"].astype(np.float64), sigma)
        offset = site_means - means
        noise = (sigma * layout.mean_radius / (SUM_WEIGHT * site_counts)) ** 2
        outer = offset[:, :, None] * offset[:, None, :] - noise[:, None, None] * np.eye(layout.features)
        scatter += (site_counts / counts)[:, None, None] * outer
    return scatter


def rings(layout: Layout) -> npt.NDArray[np.int64]:
    """[d]: which ring of spatial frequencies each feature belongs to, 0 the lowest."""
    frequency = np.hypot(*np.meshgrid(*[np.arange(layout.bandwidth)] * 2))
    return np.tile(np.digitize(frequency.ravel(), _RING_EDGES), layout.channels)


def shrink_means(means: Float64, shares: Float64, noise: Float64, ring: npt.NDArray[np.int64]) -> Float64:
    """Class means [K, d] pulled towards their weighted mean, ring by ring (positive-part James and Stein 1961).

    `noise` [K] is the known standard deviation of each class mean's coordinates.
    """
    centre = shares @ means
    spread = noise**2 * (1.0 - shares)
    shrunk = np.empty_like(means)
    for group in np.unique(ring):
        offset = (means - centre)[:, ring == group]
        power = np.maximum((offset**2).mean(axis=1), 1e-12)
        shrunk[:, ring == group] = centre[ring == group] + offset * np.maximum(0.0, 1.0 - spread / power)[:, None]
    return shrunk


def denoise_classes(raw: Float64, shares: Float64, noise: Float64, layout: Layout) -> tuple[Float64, Float64, float]:
    """Positive definite class covariances and signal projectors [K, d, d] from noisy ones; the level above the band.

    The classes share the pooled covariance, whose noise is smaller; a class departs from it only in directions in which
    the difference clearly exceeds its own noise. `noise` [K] is the standard deviation on each class's diagonal.
    """
    pooled = np.tensordot(shares, raw, axes=1)
    common, shown, level = denoise(pooled, float(np.linalg.norm(shares * noise)), layout.prior, rings(layout))
    floor = 0.25 * level * layout.prior.min()
    result, projectors = [], []
    for k, share in enumerate(shares):
        others = np.linalg.norm(np.delete(shares * noise, k))
        tau = math.hypot((1.0 - share) * noise[k], float(others)) * math.sqrt(layout.features / 2.0)
        values, vectors = np.linalg.eigh(raw[k] - pooled)
        clear = np.abs(values) > 2.0 * DEVIATION_MARGIN * tau
        change = (vectors[:, clear] * unshifted(values[clear], tau)) @ vectors[:, clear].T
        basis, _ = np.linalg.qr(np.concatenate([shown, vectors[:, clear]], axis=1))
        projectors.append(basis @ basis.T)
        values, vectors = np.linalg.eigh(common + change)
        result.append((vectors * np.maximum(values, floor)) @ vectors.T)
    return np.stack(result), np.stack(projectors), level


def denoise(
    noisy: Float64, noise: float, prior: Float64, ring: npt.NDArray[np.int64]
) -> tuple[Float64, Float64, float]:
    """Positive definite covariance [d, d] from one with symmetric Gaussian noise; its clear directions; outer level.

    `noise` is the standard deviation on the diagonal (off it, 1/sqrt2 of that). Such noise alone has its eigenvalues
    within 2 tau, tau = noise sqrt(d / 2) (Wigner's semicircle). Eigenvalues above keep their direction and lose the
    noise's share. Everything below is replaced by the public prior on the remaining subspace, its level in
    each ring of frequencies estimated from the diagonal and pulled towards 1 as far as the noise demands.
    """
    tau = noise * math.sqrt(len(prior) / 2.0)
    values, vectors = np.linalg.eigh(noisy)
    kept = values > 2.0 * tau
    signal = vectors[:, kept]
    spikes = (signal * unshifted(values[kept], tau)) @ signal.T
    rest = np.eye(len(prior)) - signal @ signal.T
    levels = np.ones(len(prior))
    for group in np.unique(ring):
        inside = ring == group
        expected = float(np.diag(rest @ (prior[:, None] * rest))[inside].sum())
        found = float(np.diag(noisy - spikes)[inside].sum()) / expected
        variance = (noise * math.sqrt(inside.sum()) / expected) ** 2
        estimate = (found * LEVEL_SPREAD**2 + variance) / (LEVEL_SPREAD**2 + variance)
        levels[inside] = np.clip(estimate, *LEVEL_RANGE)
    residual = rest @ ((levels * prior)[:, None] * rest)
    outermost = max(1.0, float(levels[ring == ring.max()][0]))
    return spikes + (residual + residual.T) / 2.0, signal, outermost


def unshifted(values: Float64, tau: float) -> Float64:
    """Eigenvalues before symmetric noise pushed them outwards (Benaych-Georges and Nadakuditi 2011); |v| >= 2 tau."""
    return np.asarray(np.sign(values) * (np.abs(values) + np.sqrt(values**2 - 4.0 * tau**2)) / 2.0)


def symmetric(upper: Float64, size: int) -> Float64:
    """Symmetric matrices [K, d, d] from row-wise upper triangles [K, d(d+1)/2] with sqrt2 on off-diagonal entries."""
    row, column = np.triu_indices(size)
    matrices = np.zeros((len(upper), size, size))
    matrices[:, row, column] = matrices[:, column, row] = upper / np.where(row == column, 1.0, math.sqrt(2.0))
    return matrices


def symmetric_root(covariance: Float64) -> Float64:
    """The positive definite symmetric square root [d, d], which is unique."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 1e-9))) @ vectors.T)

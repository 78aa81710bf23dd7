"""Covariances out of noise: shrinkage by groups of frequencies, then random-matrix thresholds (all post-processing).

The release's noise is known, since it was drawn; to it comes a sample's, because few patients do not show a covariance
even without noise: a relative variance of 2 / n on the diagonal and 1 / n beside it. Entries of a covariance are drawn
towards their expectation group by group (positive-part James and Stein 1961), where a group is a pair of rings of
spatial frequencies and whether the two coefficients are even or odd alike: mirror symmetry makes the others small. What
remains must then stand out of the spectrum that the same shrinkage leaves of pure noise, which is simulated; such
directions lose the noise's share (Benaych-Georges and Nadakuditi 2011). All else is filled from the public power law,
its level estimated ring by ring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.spectral.moment_layout import Float64, Geometry, MomentLayout
from sfumato_common.generators.spectral.structured import Structured, pairs_beyond, spectral_radius

# The power law is believed to within its own level, and a class or site to be within half that of what it departs from.
COMMON_SPREAD, PART_SPREAD = 1.0, 0.5
# Whitened variances stay above a floor that grows with the noise between these two.
FLOORS = (0.03, 0.4)
# Root mean square of a group of correlations, at most.
LARGEST_CORRELATION = 0.5
_LEVELS = (0.35, 10.0)
_DRAWS, _DRAWN_FEATURES = 4, 4096


@dataclass(frozen=True)
class Covariance:
    """A positive definite covariance [d, d], the directions [d, r] that the release showed, the outermost level."""

    form: Structured
    shown: Float64
    level: float

    @property
    def matrix(self) -> Float64:
        """The covariance itself [d, d]."""
        return self.form.matrix


def common_covariance(
    noisy: Float64, noise: float, patients: float, layout: MomentLayout, geometry: Geometry
) -> Covariance:
    """Covariance of `patients` from a noisy one, filled from the public power law; `noise` is the diagonal's deviation.

    Off the diagonal the release's noise has 1/sqrt2 of that.
    """
    level = _levels(np.diag(noisy) / layout.prior, noise / layout.prior, patients, COMMON_SPREAD, geometry)
    diagonal = level * layout.prior
    return _assemble(Structured.of_diagonal(diagonal), noisy, noise, patients, geometry, level)


def estimate_departure(
    base: Covariance, noisy: Float64, noise: float, patients: float, geometry: Geometry
) -> Covariance:
    """What `noisy` shows beyond `base`: other levels by ring, and clear directions; without either, `base` itself."""
    diagonal = base.form.variances
    ratio = _levels(np.diag(noisy) / diagonal, noise / diagonal, patients, PART_SPREAD, geometry)
    result = _assemble(base.form.scaled(np.sqrt(ratio)), noisy, noise, patients, geometry, ratio * base.level)
    together, _ = np.linalg.qr(np.concatenate([base.shown, result.shown], axis=1))
    return Covariance(result.form, together, result.level)


def _levels(ratios: Float64, noise: Float64, patients: float, spread: float, geometry: Geometry) -> Float64:
    """Levels [d] about 1 of noisy ratios [d]: by ring first, then each coefficient about its ring's.

    A coefficient is no surer to differ from its ring than a ring from 1, whatever the noise suggests.
    """
    result, noise = np.ones_like(ratios), np.sqrt(noise**2 + 2.0 / patients)
    for ring in np.unique(geometry.rings):
        inside = geometry.rings == ring
        found, weight = ratios[inside], 1.0 / noise[inside] ** 2
        mean, variance = float((weight * found).sum() / weight.sum()), float(1.0 / weight.sum())
        mean = max((mean * spread**2 + variance) / (spread**2 + variance), _LEVELS[0])
        true = max(0.0, float((weight * ((found - mean) ** 2 - noise[inside] ** 2)).sum() / weight.sum()))
        true = min(true, (spread * mean) ** 2)
        result[inside] = mean + (found - mean) * true / (true + noise[inside] ** 2)
    return np.clip(result, *_LEVELS)


def _assemble(
    base: Structured, noisy: Float64, noise: float, patients: float, geometry: Geometry, level: Float64
) -> Covariance:
    """`base` with the clear part of `noisy - base` off the diagonal, kept positive definite."""
    unit = np.sqrt(base.variances)
    whitener = 1.0 / np.outer(unit, unit)
    difference = (noisy - base.matrix) * whitener
    np.fill_diagonal(difference, 0.0)
    deviation = np.sqrt(0.5 * (noise * whitener) ** 2 + 1.0 / patients)
    kept = _shrinkage(difference, deviation, geometry)
    edge = _edge(kept * deviation)
    least = geometry.denoising.threshold * edge
    values, shown = pairs_beyond(kept * difference, least)
    whitened = base.scaled(1.0 / unit).plus(shown, _unshift(values, least)).with_variances(np.ones_like(unit))
    raised = whitened.raised(float(np.clip(geometry.denoising.floor * edge, *FLOORS)))
    basis, _ = np.linalg.qr(shown * unit[:, None])
    outermost = float(level[geometry.rings == geometry.rings.max()].mean())
    return Covariance(raised.scaled(unit), basis, outermost)


def _shrinkage(difference: Float64, deviation: Float64, geometry: Geometry) -> Float64:
    """Share [d, d] of each entry that is kept: its group's variance over that and the noise's."""
    groups, variance = geometry.groups.ravel(), deviation**2
    weight = 1.0 / variance.ravel()
    excess = np.bincount(groups, weight * (difference.ravel() ** 2 - variance.ravel()))
    # differences are in units of two deviations: a group of few pairs in much noise would pass for more than can be
    true = np.clip(excess / np.bincount(groups, weight), 0.0, LARGEST_CORRELATION**2)[geometry.groups]
    return np.asarray(true / (true + variance))


def _edge(deviation: Float64) -> float:
    """Largest eigenvalue of symmetric noise with these deviations [d, d] and an empty diagonal, by simulation.

    The draws are fixed: they are neither secret nor about anybody. A large matrix's edge is surer, so that one draw
    does: it scatters by 0.6 times the features to the power of -2/3, a third of a hundredth at 3,072.
    """
    rng = np.random.default_rng(0)
    largest = []
    for _ in range(max(1, min(_DRAWS, _DRAWN_FEATURES // len(deviation)))):
        upper = np.triu(rng.normal(size=deviation.shape), 1)
        largest.append(spectral_radius((upper + upper.T) * deviation))
    return float(np.mean(largest))


def _unshift(values: Float64, edge: float) -> Float64:
    """Eigenvalues before symmetric noise with that edge pushed them outwards; |v| > edge."""
    return np.asarray(np.sign(values) * (np.abs(values) + np.sqrt(values**2 - edge**2)) / 2.0)


def shrink_means(means: Float64, shares: Float64, noise: Float64, rings: npt.NDArray[np.int64]) -> Float64:
    """Means [P, d] pulled towards their weighted mean, ring by ring (positive-part James and Stein 1961).

    `noise` [P] is the known standard deviation of each mean's coordinates.
    """
    weighted = (shares * noise) ** 2
    others = weighted.sum() - weighted
    deviation = np.sqrt(((1.0 - shares) * noise) ** 2 + others)
    return pull_towards(means, (shares @ means)[None], np.tile(deviation[:, None], means.shape[1]), rings)


def pull_towards(means: Float64, centres: Float64, noise: Float64, rings: npt.NDArray[np.int64]) -> Float64:
    """Means [P, d] pulled towards `centres` [P or 1, d], ring by ring, as far as `noise` [P, d] demands."""
    shrunk = np.empty_like(means)
    for ring in np.unique(rings):
        inside = rings == ring
        offset = means[:, inside] - centres[:, inside]
        power = np.maximum((offset**2).mean(axis=1), 1e-12)
        kept = np.maximum(0.0, 1.0 - (noise[:, inside] ** 2).mean(axis=1) / power)
        shrunk[:, inside] = centres[:, inside] + offset * kept[:, None]
    return shrunk


def symmetric(upper: Float64, size: int) -> Float64:
    """Symmetric matrices [K, d, d] from row-wise upper triangles [K, d(d+1)/2] with sqrt2 on off-diagonal entries."""
    row, column = np.triu_indices(size)
    matrices = np.zeros((len(upper), size, size))
    matrices[:, row, column] = matrices[:, column, row] = upper / np.where(row == column, 1.0, np.sqrt(2.0))
    return matrices


def symmetric_root(covariance: Float64) -> Float64:
    """The positive definite symmetric square root [d, d], which is unique."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 1e-9))) @ vectors.T)

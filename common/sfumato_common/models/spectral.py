"""B0, the spectral model: class-conditional Gaussian on low DCT frequencies, released once by the Gaussian mechanism.

An image's feature is its first `bandwidth` x `bandwidth` DCT coefficients per channel, divided by a public
power law and clipped to the plan's radius. A patient contributes the MEAN, over that patient's images, of
[w0, w1 u, w2 triu_sqrt2(u u^T)] in the block of the image's class, with u the clipped feature over the radius. Each
such vector has norm at most sqrt(w0^2 + w1^2 + w2^2), and so has a mean of them, however many images and classes a
patient has: that is the L2 sensitivity under add/remove of a patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_common.config.plan import Plan
from sfumato_common.models.dct import dct_matrix, public_scale
from sfumato_common.types import Arrays, to_unit_range

Float64 = npt.NDArray[np.float64]

# Shares of the sensitivity. Second moments are many and each small, so they get the largest weight; a class count is
# one number of the cohort's size, so a seventh of the moments' weight still leaves it an error of a few patients.
COUNT_WEIGHT, SUM_WEIGHT, MOMENT_WEIGHT = 0.15, 0.5, 1.0
SENSITIVITY = math.sqrt(COUNT_WEIGHT**2 + SUM_WEIGHT**2 + MOMENT_WEIGHT**2)
# Features are coefficients over (power law)^COMPRESSION: 1 would drown the few strong directions in d weak
# ones, 0 would leave high frequencies under the noise.
COMPRESSION = 0.5


@dataclass(frozen=True)
class Layout:
    """Public geometry of the release: d = channels x bandwidth^2 features, K classes, clip radius in feature units."""

    size: int
    channels: int
    bandwidth: int
    classes: int
    radius: float

    @classmethod
    def of(cls, plan: Plan) -> Layout:
        """The layout that a plan implies."""
        stage = plan.spectral
        return cls(plan.image.size, plan.image.channels, stage.bandwidth, len(plan.labels), stage.clip_radius)

    @property
    def features(self) -> int:
        """d, the number of coefficients kept."""
        return self.channels * self.bandwidth**2

    @property
    def pairs(self) -> int:
        """Length of the upper triangle of a d x d matrix."""
        return self.features * (self.features + 1) // 2

    @property
    def scale(self) -> Float64:
        """[d]: DCT coefficient per feature unit; an image that follows the power law has a feature of norm about 1."""
        law = np.tile(public_scale(self.size)[: self.bandwidth, : self.bandwidth].ravel(), self.channels)
        weight = law**COMPRESSION
        return np.asarray(weight * np.linalg.norm(law / weight))

    @property
    def prior(self) -> Float64:
        """[d]: variance of each feature by the public power law; sums to 1."""
        law = np.tile(public_scale(self.size)[: self.bandwidth, : self.bandwidth].ravel(), self.channels)
        return np.asarray((law / self.scale) ** 2)


def clipped_features(layout: Layout, images: npt.NDArray[np.uint8]) -> Float64:
    """Features over the clip radius, [M, d] with norms <= 1, of uint8 images [M, S, S] or [M, S, S, 3]."""
    pixels = to_unit_range(images).astype(np.float64)
    low = dct_matrix(layout.size)[: layout.bandwidth]
    coefficients = (low @ pixels @ low.T).reshape(len(pixels), layout.features)
    unit = coefficients / (layout.scale * layout.radius)
    return np.asarray(unit / np.maximum(1.0, np.linalg.norm(unit, axis=1, keepdims=True)))


def weighted_sum(layout: Layout, unit: Float64, labels: npt.NDArray[np.int64], weights: Float64) -> Float64:
    """Sum over images of weight x contribution, [K (1 + d + d(d+1)/2)], from features [M, d] of norm <= 1.

    With weights 1/m for the m images of a patient this is the patient's contribution; over a cohort, their sum.
    """
    upper, diagonal = np.triu_indices(layout.features), np.arange(layout.features)
    blocks = []
    for k in range(layout.classes):
        mine = labels == k
        scaled = unit[mine] * weights[mine, None]
        moments = unit[mine].T @ scaled * math.sqrt(2.0)
        moments[diagonal, diagonal] /= math.sqrt(2.0)
        counts = np.array([COUNT_WEIGHT * weights[mine].sum()])
        blocks.append(np.concatenate([counts, SUM_WEIGHT * scaled.sum(axis=0), MOMENT_WEIGHT * moments[upper]]))
    return np.concatenate(blocks)


def unpack_release(layout: Layout, noisy: Float64) -> dict[str, npt.NDArray[np.float32]]:
    """Noisy weighted sum -> counts [K], sums [K, d], moments [K, d(d+1)/2] in feature units, float32."""
    rows = noisy.reshape(layout.classes, 1 + layout.features + layout.pairs)
    row, column = np.triu_indices(layout.features)
    moments = rows[:, 1 + layout.features :] / (MOMENT_WEIGHT * np.where(row == column, 1.0, math.sqrt(2.0)))
    return {
        "counts": (rows[:, 0] / COUNT_WEIGHT).astype(np.float32),
        "sums": (rows[:, 1 : 1 + layout.features] * (layout.radius / SUM_WEIGHT)).astype(np.float32),
        "moments": (moments * layout.radius**2).astype(np.float32),
    }


def fit_release(plan: Plan, pooled: Arrays, sites: int) -> dict[str, npt.NDArray[np.float32]]:
    """Parameters of the model from sums over `sites` noisy releases (post-processing).

    Gives shares [K], mean [K, d], factor [K, d, d] (symmetric root of the covariance, in feature units) and tail [K]
    (amplitude of the frequencies above the band, in units of the power law). The symmetric root is unique, and it is
    sent rather than recomputed, so that every machine starts from the same numbers.
    """
    layout = Layout.of(plan)
    noise = plan.spectral.noise_multiplier * SENSITIVITY * math.sqrt(sites)
    counts = pooled["counts"].astype(np.float64)
    # a class whose count drowns in its noise is treated as that noise's size: its moments then shrink towards nothing
    counts = np.maximum(counts, noise / COUNT_WEIGHT)
    shares = np.maximum(counts / counts.sum(), 0.02)
    means = pooled["sums"].astype(np.float64) / counts[:, None]
    factors, tails = [], []
    for k in range(layout.classes):
        second = np.zeros((layout.features, layout.features))
        second[np.triu_indices(layout.features)] = pooled["moments"][k]
        second = second + np.triu(second, 1).T
        entry_noise = noise * layout.radius**2 / (MOMENT_WEIGHT * counts[k])
        covariance, level = denoise(second / counts[k] - np.outer(means[k], means[k]), entry_noise, layout.prior)
        values, vectors = np.linalg.eigh(covariance)
        factors.append((vectors * np.sqrt(values)) @ vectors.T)
        tails.append(math.sqrt(level))
    fitted = {"shares": shares / shares.sum(), "mean": means, "factor": np.stack(factors), "tail": np.array(tails)}
    return {name: value.astype(np.float32) for name, value in fitted.items()}


def denoise(noisy: Float64, entry_noise: float, prior: Float64) -> tuple[Float64, float]:
    """Positive definite covariance [d, d] from one with symmetric Gaussian noise, and the residual's level.

    `entry_noise` is the noise's standard deviation on the diagonal (off it, 1/sqrt2 of that). Such noise alone has its
    eigenvalues within 2 tau, tau = entry_noise sqrt(d / 2) (Wigner's semicircle). Eigenvalues above keep their
    direction and lose the noise's share, l = (v + sqrt(v^2 - 4 tau^2)) / 2 (Benaych-Georges and Nadakuditi 2011). Those
    below are replaced by the public prior on the remaining subspace, scaled to the trace that is left.
    """
    tau = entry_noise * math.sqrt(len(prior) / 2.0)
    values, vectors = np.linalg.eigh(noisy)
    kept = values > 2.0 * tau
    spikes = (values[kept] + np.sqrt(values[kept] ** 2 - 4.0 * tau**2)) / 2.0
    signal = vectors[:, kept]
    rest = np.eye(len(prior)) - signal @ signal.T
    residual = rest @ (prior[:, None] * rest)
    level = float(np.clip((np.trace(noisy) - spikes.sum()) / np.trace(residual), 0.02, 2.0)) if not kept.all() else 0.02
    covariance = (signal * spikes) @ signal.T + level * residual + 1e-9 * np.eye(len(prior))
    return (covariance + covariance.T) / 2.0, level

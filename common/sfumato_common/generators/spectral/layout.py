"""B0, the spectral model: class-conditional Gaussian on low DCT frequencies, released once by Gaussian mechanisms.

An image's feature is its first `bandwidth` x `bandwidth` DCT coefficients per channel, divided by a public power law.
A site releases in three parts, each about what the one before it showed, because vectors about a centre are shorter,
and the noise falls with their clip radius (with its square, for second moments): the number and sum of all features;
then, about the noisy centre that these give, each class's count and sum; then the second moments about the noisy class
means. A patient contributes the MEAN over that patient's images of [v0, v1 f], of [w0, w1 a] and of
w2 triu_sqrt2(b b^T), the latter two in the block of the image's class, f, a and b being features (as they are, about
the centre, about the class mean) clipped to a ball, over its radius. However many images and classes a patient has, the
norms stay below sqrt(v0^2 + v1^2), sqrt(w0^2 + w1^2) and w2: the L2 sensitivities under add/remove of a patient.
Adaptive Gaussian mechanisms compose as one (Dong, Roth and Su 2022, Corollary 3.3), so with squares that sum to 1 and
noise of standard deviation `noise_multiplier` on every coordinate the three cost exactly one Gaussian release.

With `radii: charged` a site first measures its own clip radii and the amplitude of the frequencies above the band: for
each of these three norms it releases the sum over patients of w [1, c] / sqrt2, c in [-1, 1] being the patient's mean
logarithm of the norm about a public guess. That takes 3 w^2 of the budget, the noise of the other parts grows by as
much (`main_noise`), and the six mechanisms together still cost one release.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.types import Arrays, ByteImages, to_unit_range

Float64 = npt.NDArray[np.float64]

# Shares of the noise budget; their squares sum to 1. The centre need only be near, since class means are measured about
# it and lose its error. Second moments are many and each small, so they get the most; a class count is one number of
# the cohort's size, so a small share still leaves it an error of a few patients.
TOTAL_WEIGHT, CENTRE_WEIGHT = 0.1, 0.2
COUNT_WEIGHT, SUM_WEIGHT = 0.13, 0.42
CENTRE_SENSITIVITY = math.hypot(TOTAL_WEIGHT, CENTRE_WEIGHT)
SUMS_SENSITIVITY = math.hypot(COUNT_WEIGHT, SUM_WEIGHT)
MOMENT_WEIGHT = math.sqrt(1.0 - CENTRE_SENSITIVITY**2 - SUMS_SENSITIVITY**2)
# Each of the three measurements of a norm: at a noise multiplier of 4, 1,000 patients give it to a tenth.
NORMS, NORM_WEIGHT = 3, 0.08
# Amplitude of the frequencies above the band, in units of the power law, before it is measured.
TAIL_GUESS = 0.7
# A measured norm may be this factor off its guess either way, is believed to be about half that far off before
# it is measured. A clip radius is the typical norm: on the phantom, what clipping loses is less than the noise saved.
_NORM_RANGE, _NORM_PRIOR = math.log(4.0), 0.3
# Frequencies of about one size, in half waves an image: what is shrunk is shrunk ring by ring.
_RING_EDGES = (1.5, 3.0, 5.0, 7.0, 9.0, 12.0, 16.0, 20.0, 24.0)
# Features are coefficients over (power law)^COMPRESSION: 1 would drown the few strong directions in d weak
# ones, 0 would leave high frequencies under the noise.
COMPRESSION = 0.5


@dataclass(frozen=True)
class Layout:
    """Public geometry of the release: d = channels x bandwidth^2 features, K classes, clip radii in feature units."""

    size: int
    channels: int
    bandwidth: int
    classes: int
    mean_radius: float
    spread_radius: float
    bits: int = 8
    charged_radii: bool = False

    @classmethod
    def of(cls, plan: PublicPlan) -> Layout:
        """The layout that a plan implies."""
        stage = plan.spectral
        form = plan.image
        radii = stage.clip_radius, stage.spread_radius
        return cls(
            form.size, form.channels, stage.bandwidth, len(plan.labels), *radii, form.bits, stage.radii == "charged"
        )

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
        """[d]: DCT coefficient per feature unit; images that follow the law spread by about 1 in norm."""
        law = np.tile(public_scale(self.size, self.bits)[: self.bandwidth, : self.bandwidth].ravel(), self.channels)
        weight = law**COMPRESSION
        return np.asarray(weight * np.linalg.norm(law / weight))

    @property
    def prior(self) -> Float64:
        """[d]: variance of each feature by the public power law; sums to 1."""
        law = np.tile(public_scale(self.size, self.bits)[: self.bandwidth, : self.bandwidth].ravel(), self.channels)
        return np.asarray((law / self.scale) ** 2)

    @property
    def rings(self) -> npt.NDArray[np.int64]:
        """[d]: number of the ring of frequencies that each feature is in; channels share rings."""
        down, across = (np.tile(a.ravel(), self.channels) for a in np.indices([self.bandwidth] * 2))
        return np.asarray(np.digitize(np.hypot(down, across), _RING_EDGES), dtype=np.int64)


def features_of(layout: Layout, images: ByteImages) -> Float64:
    """Features [M, d], not clipped, of uint8 or uint16 images [M, S, S] or [M, S, S, 3]."""
    pixels = to_unit_range(images).astype(np.float64)
    low = dct_matrix(layout.size)[: layout.bandwidth]
    return np.asarray((low @ pixels @ low.T).reshape(len(pixels), layout.features) / layout.scale)


def in_unit_ball(vectors: Float64, radius: float) -> Float64:
    """Rows of [M, d] over `radius`, clipped to norm 1."""
    unit = vectors / radius
    return np.asarray(unit / np.maximum(1.0, np.linalg.norm(unit, axis=1, keepdims=True)))


def norms_part(vectors: Float64, guess: float, weights: Float64) -> Float64:
    """Sum over images of weight x NORM_WEIGHT [1, c] / sqrt2, [2], before noise: how far norms are from `guess`."""
    far = np.log(np.maximum(np.linalg.norm(vectors, axis=1), 1e-9) / guess) / _NORM_RANGE
    both = np.column_stack([np.ones(len(vectors)), np.clip(far, -1.0, 1.0)])
    return np.asarray((both * weights[:, None]).sum(axis=0) * (NORM_WEIGHT / math.sqrt(2.0)))


def above_band(layout: Layout, images: ByteImages) -> Float64:
    """Root mean square [M, 1] of the coefficients above the band of images [M, S, S] or [M, S, S, 3], over the law."""
    pixels = to_unit_range(images).astype(np.float64)
    matrix, band = dct_matrix(layout.size), layout.bandwidth
    power = np.square(matrix @ pixels @ matrix.T / public_scale(layout.size, layout.bits))
    outside = layout.size**2 - band**2
    total = power.sum(axis=(1, 2, 3)) - power[:, :, :band, :band].sum(axis=(1, 2, 3))
    return np.asarray(np.sqrt(np.maximum(total, 0.0) / max(1, outside * layout.channels))[:, None])


def charged_norm(noised: Float64, guess: float, noise_multiplier: float) -> float:
    """A typical norm from `norms_part` after noise, drawn towards `guess` as far as the noise demands."""
    unit = NORM_WEIGHT / math.sqrt(2.0)
    count = max(float(noised[0]), 2.0 * noise_multiplier) / unit
    variance = (noise_multiplier / unit / count) ** 2
    found = float(np.clip(noised[1] / unit / count, -1.0, 1.0)) * _NORM_PRIOR**2 / (_NORM_PRIOR**2 + variance)
    return guess * math.exp(found * _NORM_RANGE)


def charged_tails() -> tuple[float, float]:
    """The least and the largest amplitude above the band that a measurement can give."""
    return TAIL_GUESS * math.exp(-_NORM_RANGE), TAIL_GUESS * math.exp(_NORM_RANGE)


def main_noise(layout: Layout, noise_multiplier: float) -> float:
    """Standard deviation of the noise on sums and moments: with the norms' share they cost one release."""
    return noise_multiplier / math.sqrt(1.0 - NORMS * NORM_WEIGHT**2) if layout.charged_radii else noise_multiplier


def own_layout(layout: Layout, release: Arrays, noise_multiplier: float) -> Layout:
    """`layout` with the clip radii that a site's release was made with: the plan's, or those of its noised `norms`."""
    if not layout.charged_radii:
        return layout
    norms = release["norms"].astype(np.float64)
    mean_radius = charged_norm(norms[0], layout.mean_radius, noise_multiplier)
    return replace(
        layout,
        mean_radius=mean_radius,
        spread_radius=charged_norm(norms[1], layout.spread_radius, noise_multiplier),
    )


def centre_part(layout: Layout, features: Float64, weights: Float64) -> Float64:
    """Sum over images of weight x [v0, v1 f], [1 + d], before noise.

    With weights 1/m for each of a patient's m images this is that patient's contribution; over a cohort, their sum.
    """
    vectors = in_unit_ball(features, layout.mean_radius)
    both = np.column_stack([np.full(len(vectors), TOTAL_WEIGHT), CENTRE_WEIGHT * vectors])
    return np.asarray((both * weights[:, None]).sum(axis=0))


def sums_part(
    layout: Layout, features: Float64, labels: npt.NDArray[np.int64], weights: Float64, centre: Float64
) -> Float64:
    """Sum over images of weight x [w0, w1 a] about `centre` [d] in the class's row, [K, 1 + d], before noise."""
    vectors = in_unit_ball(features - centre, layout.spread_radius)
    contribution = np.column_stack([np.full(len(vectors), COUNT_WEIGHT), SUM_WEIGHT * vectors]) * weights[:, None]
    return np.stack([contribution[labels == k].sum(axis=0) for k in range(layout.classes)])


def moments_part(
    layout: Layout, features: Float64, labels: npt.NDArray[np.int64], weights: Float64, means: Float64
) -> Float64:
    """Sum over images of weight x w2 triu_sqrt2(b b^T) about `means` [K, d], [K, d(d+1)/2], before noise."""
    row, column = np.triu_indices(layout.features)
    balance = MOMENT_WEIGHT * np.where(row == column, 1.0, math.sqrt(2.0))
    rows = []
    for k in range(layout.classes):
        vectors = in_unit_ball(features[labels == k] - means[k], layout.spread_radius)
        rows.append((vectors.T @ (vectors * weights[labels == k, None]))[row, column] * balance)
    return np.stack(rows)


def centre_of(layout: Layout, noisy: Float64, noise_multiplier: float) -> Float64:
    """A centre [d] in feature units from the noised centre part, each ring of it shrunk as its noise demands."""
    total = max(float(noisy[0]), noise_multiplier) / TOTAL_WEIGHT
    unit = layout.mean_radius / CENTRE_WEIGHT / total
    centre, noise = np.asarray(noisy[1:] * unit), noise_multiplier * unit
    for ring in np.unique(layout.rings):
        inside = layout.rings == ring
        centre[inside] *= max(0.0, 1.0 - noise**2 / max(float((centre[inside] ** 2).mean()), 1e-12))
    return np.asarray(in_unit_ball(centre[None], layout.mean_radius)[0] * layout.mean_radius)


def class_counts(noisy_sums: Float64, noise_multiplier: float) -> Float64:
    """Patients [K] of the noised sums [K, 1 + d]; a count that drowns in its noise is taken as that noise's size."""
    return np.asarray(np.maximum(noisy_sums[:, 0], noise_multiplier) / COUNT_WEIGHT)


def class_means(layout: Layout, noisy_sums: Float64, centre: Float64, noise_multiplier: float) -> Float64:
    """Means [K, d] in feature units from the noised sums (post-processing); an absent class has about `centre`."""
    counts = class_counts(noisy_sums, noise_multiplier)
    offsets = noisy_sums[:, 1:] * (layout.spread_radius / SUM_WEIGHT) / counts[:, None]
    return centre + in_unit_ball(offsets, layout.spread_radius) * layout.spread_radius

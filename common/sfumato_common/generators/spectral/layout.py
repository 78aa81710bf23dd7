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
from sfumato_common.generators.spectral.moment_layout import Denoising, Float64, Weights
from sfumato_common.generators.spectral.sums import NORM_RANGE
from sfumato_common.types import ByteImages, to_unit_range

# Shares of the noise budget; their squares sum to 1. The centre need only be near, since class means are measured about
# it and lose its error. Second moments are many and each small, so they get the most; a class count is one number of
# the cohort's size, so a small share still leaves it an error of a few patients.
TOTAL_WEIGHT, CENTRE_WEIGHT = 0.1, 0.2
COUNT_WEIGHT, SUM_WEIGHT = 0.13, 0.42
WEIGHTS = Weights(TOTAL_WEIGHT, CENTRE_WEIGHT, COUNT_WEIGHT, SUM_WEIGHT)
CENTRE_SENSITIVITY, SUMS_SENSITIVITY, MOMENT_WEIGHT = (
    WEIGHTS.centre_sensitivity,
    WEIGHTS.sums_sensitivity,
    WEIGHTS.moment,
)
# The model is a density, and too narrow a Gaussian costs far more likelihood than too wide a one: what noise could have
# given is not believed, and variances stay high.
DENOISING = Denoising(threshold=1.0, floor=0.5)
NORMS = 3
# Amplitude of the frequencies above the band, in units of the power law, before it is measured.
TAIL_GUESS = 0.7
# Frequencies of about one size, in half waves an image: what is shrunk is shrunk ring by ring.
RING_EDGES = (1.5, 3.0, 5.0, 7.0, 9.0, 12.0, 16.0, 20.0, 24.0)
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
        return np.asarray(np.digitize(np.hypot(down, across), RING_EDGES), dtype=np.int64)

    @property
    def norms(self) -> int:
        """Of features, of features about their mean, and of what lies above the band."""
        return NORMS

    @property
    def weights(self) -> Weights:
        """See above."""
        return WEIGHTS

    @property
    def denoising(self) -> Denoising:
        """See above."""
        return DENOISING

    @property
    def pair_kinds(self) -> list[npt.NDArray[np.bool_]]:
        """Whether the two are even or odd alike, down and across, and of one channel; each [d, d]."""
        down, across = (np.tile(a.ravel(), self.channels) for a in np.indices([self.bandwidth] * 2))
        channel = np.repeat(np.arange(self.channels), self.bandwidth**2)
        return [np.not_equal.outer(a, a) for a in (down % 2, across % 2, channel)]

    def with_radii(self, mean_radius: float, spread_radius: float) -> Layout:
        """The same with other clip radii."""
        return replace(self, mean_radius=mean_radius, spread_radius=spread_radius)


def features_of(layout: Layout, images: ByteImages) -> Float64:
    """Features [M, d], not clipped, of uint8 or uint16 images [M, S, S] or [M, S, S, 3]."""
    pixels = to_unit_range(images).astype(np.float64)
    low = dct_matrix(layout.size)[: layout.bandwidth]
    return np.asarray((low @ pixels @ low.T).reshape(len(pixels), layout.features) / layout.scale)


def above_band(layout: Layout, images: ByteImages) -> Float64:
    """Root mean square [M, 1] of the coefficients above the band of images [M, S, S] or [M, S, S, 3], over the law."""
    pixels = to_unit_range(images).astype(np.float64)
    matrix, band = dct_matrix(layout.size), layout.bandwidth
    power = np.square(matrix @ pixels @ matrix.T / public_scale(layout.size, layout.bits))
    outside = layout.size**2 - band**2
    total = power.sum(axis=(1, 2, 3)) - power[:, :, :band, :band].sum(axis=(1, 2, 3))
    return np.asarray(np.sqrt(np.maximum(total, 0.0) / max(1, outside * layout.channels))[:, None])


def charged_tails() -> tuple[float, float]:
    """The least and the largest amplitude above the band that a measurement can give."""
    return TAIL_GUESS * math.exp(-NORM_RANGE), TAIL_GUESS * math.exp(NORM_RANGE)

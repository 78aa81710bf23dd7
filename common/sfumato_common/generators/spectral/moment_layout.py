"""What a noised release of class-conditional moments needs to know of the features that it is of.

Low frequencies of images as they are (`spectral`), of exposed and aligned ones with the energies of their textures
(`appearance`), codes of a public autoencoder (`codec`) and embeddings (`features`) are released so. Sums, noise, fit
and bounds are the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Rings = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Weights:
    """Shares of the noise budget of a release's parts; with that of the second moments their squares sum to 1."""

    total: float
    centre: float
    count: float
    sum: float

    @property
    def centre_sensitivity(self) -> float:
        """L2 sensitivity of the first part."""
        return math.hypot(self.total, self.centre)

    @property
    def sums_sensitivity(self) -> float:
        """L2 sensitivity of the classes' counts and sums."""
        return math.hypot(self.count, self.sum)

    @property
    def moment(self) -> float:
        """L2 sensitivity of the second moments: what the others leave."""
        return math.sqrt(1.0 - self.centre_sensitivity**2 - self.sums_sensitivity**2)


@dataclass(frozen=True)
class Denoising:
    """How much of what a noisy covariance shows is believed, in units of the largest eigenvalue that noise alone gives.

    Directions count whose eigenvalue is above `threshold`; whitened variances stay above `floor`.
    """

    threshold: float
    floor: float


@dataclass(frozen=True)
class Geometry:
    """Which features belong together: rings [d] of alike ones, groups [d, d] of pairs (symmetric, diagonal apart)."""

    rings: Rings
    groups: Rings
    denoising: Denoising

    @classmethod
    def of(cls, layout: MomentLayout) -> Geometry:
        """The geometry of a layout: pairs of rings, divided by what else the layout says of a pair."""
        ring = layout.rings
        keys = [np.minimum.outer(ring, ring), np.maximum.outer(ring, ring), *layout.pair_kinds]
        keys.append(np.eye(len(ring), dtype=bool))
        code = np.zeros(keys[0].shape, dtype=np.int64)
        for key in keys:
            code = code * 32 + key
        return cls(ring, np.unique(code, return_inverse=True)[1].reshape(code.shape), layout.denoising)


class MomentLayout(Protocol):
    """Public geometry of a release: d features that spread by about 1 in norm, K classes, clip radii in their units."""

    @property
    def classes(self) -> int:
        """K."""
        ...

    @property
    def mean_radius(self) -> float:
        """Clips features."""
        ...

    @property
    def spread_radius(self) -> float:
        """Clips features about a mean."""
        ...

    @property
    def charged_radii(self) -> bool:
        """Whether a site measures its own clip radii first, with a part of the budget."""
        ...

    @property
    def norms(self) -> int:
        """How many norms that takes."""
        ...

    @property
    def weights(self) -> Weights:
        """Shares of the noise budget."""
        ...

    @property
    def features(self) -> int:
        """d."""
        ...

    @property
    def pairs(self) -> int:
        """Length of the upper triangle of a d x d matrix."""
        ...

    @property
    def prior(self) -> Float64:
        """[d]: variance of each feature by public knowledge; sums to 1."""
        ...

    @property
    def rings(self) -> Rings:
        """[d]: number of the group of alike features that each is in: what is shrunk is shrunk ring by ring."""
        ...

    @property
    def pair_kinds(self) -> Sequence[npt.NDArray[np.bool_]]:
        """Each [d, d]: what else tells pairs of the same two rings apart."""
        ...

    @property
    def denoising(self) -> Denoising:
        """How much of what a noisy covariance shows is believed."""
        ...

    def with_radii(self, mean_radius: float, spread_radius: float) -> Self:
        """The same with other clip radii."""
        ...


# Sums and second moments get more alike shares than the spectral release gives them: features are fewer.
DRAWN_WEIGHTS = Weights(total=0.1, centre=0.2, count=0.13, sum=0.60)
# Of features, and of features about their mean.
DRAWN_NORMS = 2


class DrawnLayout:
    """What layouts share of whose releases images or vectors are drawn, and no likelihood is asked."""

    @property
    def norms(self) -> int:
        """See above."""
        return DRAWN_NORMS

    @property
    def weights(self) -> Weights:
        """See above."""
        return DRAWN_WEIGHTS

    @property
    def denoising(self) -> Denoising:
        """Groups of pairs are shrunk before, so that weaker directions than the noise's largest are more signal.

        On held-out patients of three sites a quarter of it served best at epsilon 1 and 10.
        """
        return Denoising(threshold=0.25, floor=0.075)

"""The public feature map's geometry: which frequencies, bands, cells and parameters make an image's feature vector.

Features are, in this order: the `coefficients` DCT coefficients of least radial frequency of the exposed and aligned
image, and of colour a quarter as many of each of two chroma planes; log energies of the exposed image's luminance in
radial bands above that disc, on a grid of 4 x 4 cells; exposure (mean, log deviation) and pose (shift x, y, log scale
x, y, rotation; of a fundus whether it is a right eye). Their public variances sum to 1: .616 low frequencies, .264
energies, .12 exposure and pose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.dct import public_scale
from sfumato_common.generators.spectral.layout import COMPRESSION, RING_EDGES
from sfumato_common.generators.spectral.moment_layout import DrawnLayout, Float64, Rings

GRID = 4
# a band's energy in a cell is log(rms + FLOOR), in units of the image's own deviation
FLOOR = 0.002
_ENERGY_DEVIATION = 0.5
# public deviations: mean and log deviation of an image; shift and log scale x, y in half sides; rotation in radians
_EXPOSURE = (0.20, 0.25)
POSE = (0.10, 0.10, 0.10, 0.10, 0.06)
# a fundus is a right eye (1) or a left one (-1)
_SIDE = (1.0,)
# images divided by their own deviation: the power law is of images in [-1, 1], whose deviation is about 0.4
CONTRAST = 2.5
_CHROMA = 0.3  # amplitude of chroma beside luminance
_SHARES = (0.616, 0.264, 0.12)
_BAND_EDGES = (14.0, 22.0, 34.0, 68.0, 136.0, 272.0)


@dataclass(frozen=True)
class FeatureMap:
    """Geometry for images [S, S] of `channels`; `phantoms` patients make the public pool, unused without alignment."""

    size: int
    channels: int
    coefficients: int
    alignment: str
    phantoms: int

    @classmethod
    def of(cls, plan: PublicPlan) -> FeatureMap:
        """The map that a plan implies."""
        stage, size = stage_of(plan, AppearanceStage), plan.image.size
        kept = stage.coefficients or (min(144, size * size // 5) if size < 48 else 64)
        phantoms = stage.phantoms or min(450, max(50, 2**24 // size**2))
        return cls(size, plan.image.channels, kept, stage.alignment, phantoms)

    @property
    def aligned(self) -> bool:
        """Whether images are laid onto the phantom's mean."""
        return self.alignment != "none"

    @property
    def mirrored(self) -> bool:
        """Whether left ones are mirrored first."""
        return self.alignment == "fundus"

    @property
    def beyond(self) -> Literal["border", "reflection"]:
        """What a phantom's lines go on as outside its picture: drawn out, they were streaks; a frame stays black."""
        return "border" if self.mirrored else "reflection"

    @cached_property
    def frequency(self) -> Float64:
        """Radial frequency [S, S] of each coefficient, in half waves an image."""
        return np.asarray(np.hypot(*np.indices((self.size, self.size))), dtype=np.float64)

    @cached_property
    def low(self) -> npt.NDArray[np.int64]:
        """[K]: places of the kept coefficients in the flattened plane, least frequency first."""
        return np.asarray(np.argsort(self.frequency.ravel(), kind="stable")[: self.coefficients], dtype=np.int64)

    @property
    def chroma(self) -> npt.NDArray[np.int64]:
        """Places of the coefficients kept of each chroma plane; none of grey images."""
        return self.low[: self.coefficients // 4 if self.channels == 3 else 0]

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Places of all kept coefficients, plane after plane."""
        return np.concatenate([self.low, self.chroma, self.chroma])

    @cached_property
    def bands(self) -> npt.NDArray[np.bool_]:
        """Masks [B, S, S] of the texture bands: disjoint, and with the low coefficients they cover the plane."""
        inside = np.zeros(self.size**2, dtype=bool)
        inside[self.low] = True
        disc, outermost = inside.reshape(self.size, self.size), float(self.frequency.ravel()[self.low[-1]])
        if self.size < 48:
            edges = [outermost * 4.0 / 3.0, outermost * 16.0 / 9.0]
        else:
            edges = [edge for edge in _BAND_EDGES if 1.2 * outermost < edge <= 0.54 * self.size]
        ring = np.digitize(self.frequency, edges, right=True)
        masks = [(ring == band) & ~disc for band in range(len(edges) + 1)]
        return np.stack([mask for mask in masks if mask.any()])

    @property
    def energies(self) -> int:
        """Number of energies."""
        return len(self.bands) * GRID**2

    @property
    def parameters(self) -> int:
        """Number of exposure and pose parameters."""
        return len(self._parameter_law)

    @property
    def _parameter_law(self) -> tuple[float, ...]:
        return _EXPOSURE + (POSE if self.aligned else ()) + (_SIDE if self.mirrored else ())

    @property
    def features(self) -> int:
        """d."""
        return len(self.places) + self.energies + self.parameters

    @cached_property
    def law(self) -> Float64:
        """[d]: public deviation of every number, in its own unit."""
        planes = public_scale(self.size).ravel() * CONTRAST
        low = np.concatenate([planes[self.low], np.tile(planes[self.chroma] * _CHROMA, 2)])
        return np.concatenate([low, np.full(self.energies, _ENERGY_DEVIATION), self._parameter_law])

    @cached_property
    def prior(self) -> Float64:
        """[d]: public variance of every feature; sums to 1."""
        count, low = len(self.places), self.law[: len(self.places)] ** (2.0 * (1.0 - COMPRESSION))
        parts = low / low.sum(), np.full(self.energies, 1.0 / self.energies)
        rest = np.full(self.parameters, 1.0 / self.parameters)
        assert len(parts[0]) == count
        return np.concatenate([share * part for share, part in zip(_SHARES, (*parts, rest), strict=True)])

    @cached_property
    def scale(self) -> Float64:
        """[d]: number per feature unit."""
        return np.asarray(self.law / np.sqrt(self.prior))

    def split(self, numbers: Float64) -> tuple[Float64, Float64, Float64]:
        """Low coefficients, energies and parameters of [N, d]."""
        first, second = len(self.places), len(self.places) + self.energies
        return numbers[:, :first], numbers[:, first:second], numbers[:, second:]

    @cached_property
    def rings(self) -> Rings:
        """[d]: rings of frequency, of luminance and of chroma apart; bands; each sort of exposure and pose."""
        radius = self.frequency.ravel()
        luminance, chroma = (np.digitize(radius[places], RING_EDGES) for places in (self.low, self.chroma))
        bands = np.repeat(np.arange(len(self.bands)), GRID**2)
        # mean, deviation, shifts, log scales, rotation, side: a pair of sorts may be correlated where others are not
        sorts = np.array([48, 49, 50, 50, 51, 51, 52, 53])[: self.parameters]
        parts = [luminance, 16 + np.tile(chroma, 2), 32 + bands, sorts]
        return np.unique(np.concatenate(parts), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def pair_kinds(self) -> Sequence[npt.NDArray[np.bool_]]:
        """Even or odd alike for two coefficients, one row and one column for two energies; whether of one plane."""
        down, across = self.places // self.size % 2, self.places % self.size % 2
        row, column = (np.tile(a.ravel(), len(self.bands)) for a in np.indices((GRID, GRID)))
        sort = np.repeat([0, 1, 2], [len(self.places), self.energies, self.parameters])
        alike, none = np.equal.outer(sort, sort), np.zeros(self.parameters, dtype=np.int64)
        first, second = np.concatenate([down, row, none]), np.concatenate([across, column, none])
        plane = np.repeat([0, 1, 2, 0], [len(self.low), *[len(self.chroma)] * 2, self.energies + self.parameters])
        return [np.not_equal.outer(key, key) & alike for key in (first, second, plane)]


@dataclass(frozen=True)
class AppearanceLayout(DrawnLayout):
    """A feature map with the classes and clip radii of a release: what `spectral.moment_layout` asks for."""

    map: FeatureMap
    classes: int
    mean_radius: float
    spread_radius: float
    charged_radii: bool

    @classmethod
    def of(cls, plan: PublicPlan) -> AppearanceLayout:
        """The layout that a plan implies."""
        stage = stage_of(plan, AppearanceStage)
        radii = stage.clip_radius, stage.spread_radius
        return cls(FeatureMap.of(plan), len(plan.labels), *radii, stage.radii == "charged")

    @property
    def features(self) -> int:
        """d."""
        return self.map.features

    @property
    def pairs(self) -> int:
        """Length of the upper triangle of a d x d matrix."""
        return self.features * (self.features + 1) // 2

    @property
    def prior(self) -> Float64:
        """[d]: of the map."""
        return self.map.prior

    @property
    def rings(self) -> Rings:
        """[d]: of the map."""
        return self.map.rings

    @property
    def pair_kinds(self) -> Sequence[npt.NDArray[np.bool_]]:
        """Of the map."""
        return self.map.pair_kinds

    def with_radii(self, mean_radius: float, spread_radius: float) -> AppearanceLayout:
        """The same with other clip radii."""
        return replace(self, mean_radius=mean_radius, spread_radius=spread_radius)


assert math.isclose(sum(_SHARES), 1.0)

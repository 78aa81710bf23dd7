"""Geometry of a codec's codes for the release of their moments: the cosines that they are bent from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sfumato_common.codec.form import CodecForm
from sfumato_common.codec.network import Places, lowest
from sfumato_common.generators.codec.settings import CodecStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.dct import public_scale
from sfumato_common.generators.spectral.layout import COMPRESSION, RING_EDGES
from sfumato_common.generators.spectral.moment_layout import DrawnLayout, Float64, Rings

_EDGES = (*RING_EDGES, 28.0, 32.0, 36.0, 40.0, 48.0, 56.0, 64.0)


@dataclass(frozen=True)
class CodecLayout(DrawnLayout):
    """What `spectral.moment_layout` asks for, of codes [d] = channels x cosines over public scales."""

    form: CodecForm
    bits: int
    classes: int
    mean_radius: float
    spread_radius: float
    charged_radii: bool

    @classmethod
    def of(cls, plan: PublicPlan) -> CodecLayout:
        """The layout that a plan implies."""
        stage = stage_of(plan, CodecStage)
        radii = stage.clip_radius, stage.spread_radius
        return cls(stage.form, plan.image.bits, len(plan.labels), *radii, stage.radii == "charged")

    @property
    def features(self) -> int:
        """d."""
        return self.form.numbers

    @property
    def pairs(self) -> int:
        """Length of the upper triangle of a d x d matrix."""
        return self.features * (self.features + 1) // 2

    @cached_property
    def _frequencies(self) -> tuple[Places, Places]:
        return lowest(self.form.size, self.form.cosines)

    @cached_property
    def _law(self) -> Float64:
        """[d]: public deviation of every number: bent cosines keep about the size of plain ones."""
        return np.tile(public_scale(self.form.size, self.bits)[self._frequencies], self.form.channels)

    @cached_property
    def scale(self) -> Float64:
        """[d]: number per feature unit."""
        weight = self._law**COMPRESSION
        return np.asarray(weight * np.linalg.norm(self._law / weight))

    @property
    def prior(self) -> Float64:
        """[d]: public variance of every feature; sums to 1."""
        return np.asarray((self._law / self.scale) ** 2)

    @property
    def rings(self) -> Rings:
        """[d]: rings of frequency, which channels share."""
        radius = np.hypot(*self._frequencies)
        return np.asarray(np.tile(np.digitize(radius, _EDGES), self.form.channels), dtype=np.int64)

    @property
    def pair_kinds(self) -> Sequence[npt.NDArray[np.bool_]]:
        """Whether the two are even or odd alike, down and across, and of one channel; each [d, d]."""
        down, across = (np.tile(part % 2, self.form.channels) for part in self._frequencies)
        channel = np.repeat(np.arange(self.form.channels), self.form.cosines)
        return [np.not_equal.outer(key, key) for key in (down, across, channel)]

    def with_radii(self, mean_radius: float, spread_radius: float) -> CodecLayout:
        """The same with other clip radii."""
        return replace(self, mean_radius=mean_radius, spread_radius=spread_radius)

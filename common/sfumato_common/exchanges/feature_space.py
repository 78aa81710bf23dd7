"""How an image becomes a released vector: the embedding, about the phantom's mean, in random public directions.

Directions are orthonormal and drawn from the plan's digest (Johnson and Lindenstrauss 1984), and lengths are in units
of the phantom's own, so that vectors spread by about 1 in norm. All of it is public and one image's alone; what a
vector is clipped to, and so the sensitivity, does not depend on it (see `generators.spectral.layout` for the proof).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from sfumato_common.encoders.encoder import Encoder
from sfumato_common.exchanges.features import FeaturesStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.moment_layout import DrawnLayout, Float64, Rings
from sfumato_common.phantom import arrays
from sfumato_common.types import ByteImages, to_unit_range

# public: of the phantom cohort whose embeddings are the units
_SEED, _PATIENTS = 20_230_401, 40
_MEAN_RADIUS, _SPREAD_RADIUS = 1.8, 0.9  # guesses, as of the spectral release: norms are measured, and charged


@dataclass(frozen=True)
class FeatureLayout(DrawnLayout):
    """Vectors of d numbers that are all alike, in K classes: what `spectral.moment_layout` asks for."""

    classes: int
    features: int
    mean_radius: float = _MEAN_RADIUS
    spread_radius: float = _SPREAD_RADIUS
    charged_radii: bool = True

    @classmethod
    def of(cls, plan: PublicPlan) -> FeatureLayout:
        """The layout that a plan implies."""
        return cls(len(plan.labels), stage_of(plan, FeaturesStage).dimensions)

    @property
    def pairs(self) -> int:
        """Length of the upper triangle of a d x d matrix."""
        return self.features * (self.features + 1) // 2

    @property
    def prior(self) -> Float64:
        """[d]: random directions are alike."""
        return np.full(self.features, 1.0 / self.features)

    @property
    def rings(self) -> Rings:
        """[d]: one."""
        return np.zeros(self.features, dtype=np.int64)

    @property
    def pair_kinds(self) -> Sequence[npt.NDArray[np.bool_]]:
        """None."""
        return ()

    def with_radii(self, mean_radius: float, spread_radius: float) -> FeatureLayout:
        """The same with other clip radii."""
        return replace(self, mean_radius=mean_radius, spread_radius=spread_radius)


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """A plan's map: images -> embedding [D] @ `matrix` [D, d] + `offset` [d], by the plan's encoder."""

    encoder: Encoder
    matrix: Float64
    offset: Float64

    @classmethod
    def of(cls, plan: PublicPlan, encoder: Encoder) -> FeatureSpace:
        """The map, from the plan's digest and the phantom."""
        form, stage = plan.image, stage_of(plan, FeaturesStage)
        modality = "fundus" if form.channels == 3 else "chest"
        images = arrays(_SEED, _PATIENTS, form.size, bits=form.bits, modality=modality)[0]
        known = embeddings(encoder, images)
        centre = known.mean(axis=0)
        length = math.sqrt(float(((known - centre) ** 2).sum(axis=1).mean()))
        draw = np.random.default_rng(int(plan.drawn_from[:15], 16)).normal(size=(encoder.length, stage.dimensions))
        directions, signs = np.linalg.qr(draw)
        # of a unit length in all directions together, so much falls into these; signs of a QR are conventions
        unit = length * math.sqrt(stage.dimensions / encoder.length)
        matrix = directions * np.sign(np.diag(signs)) / unit
        return cls(encoder, matrix, -centre @ matrix)

    def vectors(self, images: ByteImages) -> Float64:
        """Vectors [M, d] of integer images [M, S, S(, 3)], each on its own; one that is not finite becomes zero."""
        found = [row @ self.matrix + self.offset for row in embeddings(self.encoder, images)]
        sound = [row if np.isfinite(row).all() else np.zeros_like(self.offset) for row in found]
        return np.stack(sound) if sound else np.zeros((0, len(self.offset)))


def embeddings(encoder: Encoder, images: ByteImages) -> Float64:
    """Embeddings [M, D], one image at a time: in batches the last bits depend on how many come along."""
    with torch.no_grad():
        found = [encoder(torch.from_numpy(to_unit_range(image[None])))[0].double().numpy() for image in images]
    return np.stack(found) if found else np.zeros((0, encoder.length))

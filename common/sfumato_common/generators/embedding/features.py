"""Mean-embedding release: how a cohort's mean features differ from the spectral model's, by one Gaussian mechanism.

Features are hybrid: low DCT frequencies, scattering of the luminance, and random Fourier features of the DCT (DP-MERF,
Harder et al. 2021, with the perceptual features of DP-MEPF, Harder et al. 2023, replaced by fixed public ones). Where
the plan names a given encoder, its embedding stands in for scattering: a frozen public network costs no privacy,
because the bound below holds whatever the features are. They
are centred and scaled, class by class, by the features of images drawn from the RELEASED spectral model: that costs
nothing, needs no constant fitted to any data, and leaves only what a Gaussian on the DCT does not say.

Each group of D_p features is clipped to a ball of radius CLIP sqrt(D_p) and weighted by sqrt(D_p / D), so that the
whole phi has norm at most 1 and the noise is the same on every standardised feature. A patient contributes the MEAN
over that patient's images of [w0, w1 phi] in the row of the image's label; with w0^2 + w1^2 = 1 the norm stays within
1, the L2 sensitivity under add/remove of a patient, however many images and labels the patient has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import VerificationError
from sfumato_common.generators.components import components_of
from sfumato_common.generators.embedding.scattering import group_sizes, scattering
from sfumato_common.generators.embedding.settings import EmbeddingStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.dct import dct_matrix
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.types import AnyArray, Arrays, to_unit_range

Float64 = npt.NDArray[np.float64]

# Shares of the noise budget, as in the spectral release.
COUNT_WEIGHT = 0.13
FEATURE_WEIGHT = math.sqrt(1.0 - COUNT_WEIGHT**2)
SENSITIVITY = 1.0
# A group's radius in units of its typical norm; chosen on the phantom cohort, where few images reach it.
CLIP = 2.0
_DCT_BAND = 8
# Random Fourier features: frequencies per DCT feature unit (classes spread by about 1), 2 x COUNT features each.
_FOURIER_SCALES = (1.0, 2.0)
_FOURIER_COUNT = 32
_REFERENCE_IMAGES = 256  # a component: their mean is known to 1/16 of a standard deviation
_SMALLEST_SPREAD = 0.05  # of the group's mean spread: a feature that hardly varies must not be blown up


@dataclass(frozen=True)
class Reference:
    """The spectral model's features by component: centre and scale, both float32 [G, D]."""

    centre: Tensor
    scale: Tensor


class Embedding:
    """The public feature map of a plan: images [N, C, S, S] in [-1, 1] -> [N, D], each image on its own.

    A plan that names a given encoder needs it for features, `encoder`; their number is known without.
    """

    def __init__(self, plan: PublicPlan, encoder: Encoder | None = None) -> None:
        name = stage_of(plan, EmbeddingStage).encoder
        self._encoder, self._encodes = encoder, name is not None
        layout = Layout.of(plan)
        self._size, self._band = layout.size, min(_DCT_BAND, layout.bandwidth)
        rows = np.arange(layout.features).reshape(layout.channels, layout.bandwidth, layout.bandwidth)
        kept = rows[:, : self._band, : self._band].ravel()
        self._low = torch.from_numpy(dct_matrix(layout.size)[: self._band]).float()
        self._scale = torch.from_numpy(layout.scale[kept]).float()
        # public, the same on every machine: numpy's PCG64 is specified, torch's normals are not across versions
        draw = np.random.default_rng(int(plan.drawn_from[:15], 16))
        shape = (len(_FOURIER_SCALES), _FOURIER_COUNT, len(kept))
        waves = draw.normal(size=shape) * np.array(_FOURIER_SCALES)[:, None, None]
        self._waves = torch.from_numpy(waves.reshape(-1, len(kept))).float()
        fourier = [2 * _FOURIER_COUNT] * len(_FOURIER_SCALES)
        seen = group_sizes(layout.size) if name is None else [plan.encoders[name].length]
        self.groups = [len(kept), *seen, *fourier]

    @property
    def length(self) -> int:
        """D, the number of features."""
        return sum(self.groups)

    def features(self, images: Tensor) -> Tensor:
        """Raw features [N, D], differentiable."""
        low = self._low.to(images)
        dct = (low @ images @ low.T).flatten(1) / self._scale.to(images)
        phase = dct @ self._waves.to(images).T
        waves = phase.view(len(images), len(_FOURIER_SCALES), _FOURIER_COUNT)
        fourier = torch.cat([waves.cos(), waves.sin()], dim=2).flatten(1)
        return torch.cat([dct, self._seen(images), fourier], dim=1)

    def _seen(self, images: Tensor) -> Tensor:
        if not self._encodes:
            return scattering(images.mean(dim=1, keepdim=True))
        if self._encoder is None:
            raise VerificationError("the plan's embedding needs its given encoder, and nobody brought it")
        found: Tensor = self._encoder(images)
        return found

    def standardise(self, features: Tensor, reference: Reference, components: Tensor) -> Tensor:
        """Features [N, D] less their component's centre over its scale, each group clipped to CLIP sqrt(D_p)."""
        offset = (features - reference.centre[components]) / reference.scale[components]
        parts = []
        for part in torch.split(offset, self.groups, dim=1):
            norm = part.norm(dim=1, keepdim=True) / (CLIP * math.sqrt(part.shape[1]))
            parts.append(part / norm.clamp(min=1.0))
        return torch.cat(parts, dim=1)

    def reference(self, plan: PublicPlan, arrays: Arrays, components: Tensor) -> Reference:
        """Centre and scale of `components`, from images that the released spectral model draws; other rows stay 0, 1.

        Every component has its own public seed, so that a site that needs only its own gets the coordinator's numbers.
        """
        spectral = spectral_model(plan, arrays)
        count = len(arrays["spectral/shares"])
        centre, scale = torch.zeros(count, self.length), torch.ones(count, self.length)
        for component in components.tolist():
            draws = TorchDraws(torch.Generator().manual_seed(int(plan.drawn_from[:12], 16) + component))
            with torch.no_grad():
                images = spectral.sample(torch.full((_REFERENCE_IMAGES,), component), draws)
                features = self.features(images)
            centre[component] = features.mean(dim=0)
            spreads = torch.split(features.std(dim=0), self.groups)
            scale[component] = torch.cat(
                [part.clamp(min=1e-6 + _SMALLEST_SPREAD * float(part.mean())) for part in spreads]
            )
        return Reference(centre, scale)


def unit_of(embedding: Embedding) -> float:
    """Standardised features per unit of the released vector: phi = standardised / unit_of."""
    return CLIP * math.sqrt(embedding.length)


def embedding_sums(
    plan: PublicPlan,
    site: str,
    inbound: Arrays,
    images: AnyArray,
    labels: npt.NDArray[np.int64],
    weights: Float64,
    encoder: Encoder | None = None,
) -> Float64:
    """Sum over images of weight x [w0, w1 phi] in the label's row, [K, 1 + D], before noise; float64.

    Weights are 1/m for each of a patient's m images. One image at a time: in batches the last bits of a
    feature depend on how many images come along, and crafted spectral arrays could make such a bit matter.
    """
    embedding = Embedding(plan, encoder)
    classes = torch.arange(len(plan.labels))
    reference = embedding.reference(plan, inbound, components_of(plan, site, classes))
    sums = np.zeros((len(plan.labels), 1 + embedding.length))
    for image, label, weight in zip(images, labels, weights, strict=True):
        with torch.no_grad():
            features = embedding.features(torch.from_numpy(to_unit_range(image[None])))
            component = components_of(plan, site, torch.tensor([label]))
            vector = embedding.standardise(features, reference, component)[0].double().numpy() / unit_of(embedding)
        sums[label, 0] += weight * COUNT_WEIGHT
        sums[label, 1:] += weight * FEATURE_WEIGHT * in_unit_ball(vector)
    return sums


def in_unit_ball(vector: Float64) -> Float64:
    """`vector` [D] with norm at most 1 in float64; all zeros when it is not finite, as crafted arrays could make it."""
    norm = float(np.linalg.norm(vector))
    return vector / max(1.0, norm) if math.isfinite(norm) else np.zeros_like(vector)

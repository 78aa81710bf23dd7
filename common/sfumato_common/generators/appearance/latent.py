"""The appearance space: codes in which shape, brightness and texture are averaged apart (after Cootes et al. 2001).

A code holds an image's features: the low frequencies of the exposed image as it lies on the template, the log energies
of its texture, exposure and pose, each about its public centre in units of its public deviation. So the mean of codes
is an image at the mean place, of the mean coarse picture, with texture as strong as the members' on average, where a
mean of pixels is a blur. A map of one image and of public constants makes the codes: no coordinator chooses anything in
them.

The lines of the texture are not in the code: noise and a drawn phantom's, as in the release's own images. Which phantom
and where it lies follow from the release alone, not from whom a code stands for: a nearest phantom could be another
without one patient, and fine lines that move by half a pixel are other lines. Nor is the side of an eye in the code:
both of a patient share its coordinates, and which an image shows is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sfumato_common.generators.appearance.features import features_of_pixels
from sfumato_common.generators.appearance.synthesis import AppearanceModel, appearance_model
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.latent.space import LatentSpace
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.rows import row_bytes
from sfumato_common.types import Arrays

_FARTHEST = 20.0  # deviations: beyond, numbers are not taken at their word


@dataclass(frozen=True, eq=False)
class AppearanceNoise:
    """Grain [N, S, S], the phantom's share [N] of the detail, which of the pool it is [N], its pose [N, 5], side [N].

    Poses are [N, 0] where images are not aligned.
    """

    grain: Tensor
    share: Tensor
    phantom: Tensor
    pose: Tensor
    side: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of it."""
        return self.grain, self.share, self.phantom, self.pose, self.side

    def __len__(self) -> int:
        """N."""
        return len(self.grain)

    def at(self, rows: Tensor) -> AppearanceNoise:
        """The noise of the images `rows`."""
        rows = rows.to(self.grain.device)
        return AppearanceNoise(*(part[rows] for part in self.parts))

    def joined(self, others: Sequence[AppearanceNoise]) -> AppearanceNoise:
        """This noise, and then that of `others`."""
        kinds = zip(*(noise.parts for noise in (self, *others)), strict=True)
        return AppearanceNoise(*(torch.cat(kind) for kind in kinds))


class AppearanceSpace(LatentSpace):
    """Codes of images by the feature map of an appearance release."""

    def __init__(self, model: AppearanceModel) -> None:
        self._model, self._map = model, model.map
        # the side of a fundus is the last feature, and the noise's to say
        self._sides = int(self._map.mirrored)
        unit = torch.from_numpy(np.sqrt(self._map.prior)).float().to(model.device)
        self._unit = unit[: self.dimension]

    @property
    def dimension(self) -> int:
        """D: features of the map, but for the side."""
        return self._map.features - self._sides

    @property
    def device(self) -> torch.device:
        """Where the model is; features are computed on the CPU."""
        return self._model.device

    def to(self, device: torch.device) -> AppearanceSpace:
        """The same space on `device`."""
        return AppearanceSpace(self._model.to(device))

    @cached_property
    def image_bytes(self) -> int:
        """Bytes that an image of a code takes with everything kept for a gradient."""
        noise = self._silence(1)

        def images(codes: Tensor, *parts: Tensor) -> Tensor:
            return self._images(codes, AppearanceNoise(*parts))

        return row_bytes(images, self._unit.new_zeros(1, self.dimension), *noise.parts)

    def encode(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S]; of every component the same."""
        del components
        pixels = images.detach().cpu().numpy().astype(np.float64)
        features = torch.from_numpy(features_of_pixels(self._map, pixels)).float().to(self.device)
        return features[:, : self.dimension] / self._unit

    def decode(self, codes: Tensor, components: Tensor, noise: AppearanceNoise | None = None) -> Tensor:
        """Images [N, C, S, S] of codes [N, D] or [N, 1, D]; without noise there are no lines, and an eye is a right."""
        del components
        return self._images(codes.flatten(1), self._silence(len(codes)) if noise is None else noise)

    def plain(self, average: Tensor, codes: Tensor, components: Tensor, noise: AppearanceNoise | None = None) -> Tensor:
        """The low frequencies of `average` [N, C, S, S]: no code decodes to images that are affine in its images."""
        del codes, components, noise
        return self._model.coarse(average).clamp(-1.0, 1.0)

    def draw(self, components: Tensor, draws: Draws) -> tuple[Tensor, AppearanceNoise]:
        """Codes [N, D] of the released Gaussians, and noise whose phantom is one of the nearest to them."""
        normal = draws.normal((len(components), self._map.features)).to(self.device)
        grain, share, chosen = self._model.drawn(len(components), draws)
        features = self._model.features_of(components, normal)
        phantom = self._model.phantoms(self._model.numbers_of(features), chosen)
        side = features[:, -1] if self._sides else torch.ones_like(share)
        pose = self._model.poses(self._model.numbers_of(self._model.mean[components]))
        noise = AppearanceNoise(grain, share, phantom, pose, torch.where(side < 0.0, -1.0, 1.0))
        return features[:, : self.dimension] / self._unit, noise

    def centre(self, components: Tensor) -> Tensor:
        """The released mean [N, D] of each component."""
        return self._model.mean[components][:, : self.dimension] / self._unit

    def _images(self, codes: Tensor, noise: AppearanceNoise) -> Tensor:
        features = codes.clamp(-_FARTHEST, _FARTHEST) * self._unit
        if self._sides:
            features = torch.cat([features, noise.side[:, None]], dim=1)
        numbers = self._model.numbers_of(features)
        return self._model.images(numbers, noise.grain, noise.share, noise.phantom, noise.pose)

    def _silence(self, count: int) -> AppearanceNoise:
        one = self._unit.new_ones(count)
        grain = self._unit.new_zeros(count, self._map.size, self._map.size)
        pose = self._model.poses(self._unit.new_zeros(count, self._map.features))
        return AppearanceNoise(grain, 0.0 * one, torch.zeros_like(one, dtype=torch.int64), pose, one)


def appearance_space(plan: PublicPlan, arrays: Arrays) -> AppearanceSpace:
    """The space of a released appearance model, on the CPU. Raises what `appearance_model` raises."""
    return AppearanceSpace(appearance_model(plan, arrays))

"""The appearance space: codes in which shape, brightness and texture are averaged apart (after Cootes et al. 2001).

A code holds an image's features: the low frequencies of the exposed image as it lies on the template, the log energies
of its texture, exposure and pose, each about its public centre in units of its public deviation. So the mean of codes
is an image at the mean place, of the mean coarse picture, with texture as strong as the members' on average, where a
mean of pixels is a blur. A map of one image and of public constants makes the codes: no coordinator chooses anything in
them.

The lines of the texture are not in the code: noise and a drawn phantom's, as in the release's own images. Which phantom
follows from the prior alone, not from whom a code stands for: a nearest one could be another without one patient. Nor
is the side of an eye: both of a patient have one code's coordinates, and which an image shows is drawn.
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
from sfumato_common.memory import row_bytes
from sfumato_common.types import Arrays

_FARTHEST = 20.0  # deviations: beyond, numbers are not taken at their word


@dataclass(frozen=True, eq=False)
class AppearanceNoise:
    """Grain [N, S, S], the phantom's share [N] of the detail, which phantom of the pool [N], and the side [N]."""

    grain: Tensor
    share: Tensor
    phantom: Tensor
    side: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.grain)

    def at(self, rows: Tensor) -> AppearanceNoise:
        """The noise of the images `rows`."""
        rows = rows.to(self.grain.device)
        return AppearanceNoise(self.grain[rows], self.share[rows], self.phantom[rows], self.side[rows])

    def joined(self, others: Sequence[AppearanceNoise]) -> AppearanceNoise:
        """This noise, and then that of `others`."""
        parts = [_parts(part) for part in (self, *others)]
        return AppearanceNoise(*(torch.cat(kind) for kind in zip(*parts, strict=True)))


class AppearanceSpace(LatentSpace):
    """Codes of images by the feature map of an appearance release; what is plain in an image has no texture."""

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
            return self._images(codes, AppearanceNoise(*parts), textured=True)

        return row_bytes(images, self._unit.new_zeros(1, self.dimension), *_parts(noise))

    def encode(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S]; of every component the same."""
        del components
        pixels = images.detach().cpu().numpy().astype(np.float64)
        features = torch.from_numpy(features_of_pixels(self._map, pixels)).float().to(self.device)
        return features[:, : self.dimension] / self._unit

    def decode(self, codes: Tensor, components: Tensor, noise: AppearanceNoise | None = None) -> Tensor:
        """Images [N, C, S, S] of codes [N, D] or [N, 1, D]; without noise there are no lines, and an eye is a right."""
        del components
        return self._images(codes.flatten(1), self._silence(len(codes)) if noise is None else noise, textured=True)

    def plain(self, codes: Tensor, components: Tensor, noise: AppearanceNoise | None = None) -> Tensor:
        """Images [N, C, S, S] without texture: low frequencies in their place, exposed."""
        del components
        return self._images(codes, self._silence(len(codes)) if noise is None else noise, textured=False)

    def draw(self, components: Tensor, draws: Draws) -> tuple[Tensor, AppearanceNoise]:
        """Codes [N, D] of the released Gaussians, and the noise beside them, as `AppearanceModel.sample` draws both."""
        normal = draws.normal((len(components), self._map.features)).to(self.device)
        grain, share, chosen = self._model.drawn(len(components), draws)
        features = self._model.features_of(components, normal)
        phantom = self._model.phantoms(self._model.numbers_of(features), chosen)
        side = features[:, -1] if self._sides else torch.ones_like(share)
        codes = features[:, : self.dimension] / self._unit
        return codes, AppearanceNoise(grain, share, phantom, torch.where(side < 0.0, -1.0, 1.0))

    def centre(self, components: Tensor) -> Tensor:
        """The released mean [N, D] of each component."""
        return self._model.mean[components][:, : self.dimension] / self._unit

    def _images(self, codes: Tensor, noise: AppearanceNoise, *, textured: bool) -> Tensor:
        features = codes.clamp(-_FARTHEST, _FARTHEST) * self._unit
        if self._sides:
            features = torch.cat([features, noise.side[:, None]], dim=1)
        numbers = self._model.numbers_of(features)
        return self._model.images(numbers, noise.grain, noise.share, noise.phantom, textured=textured)

    def _silence(self, count: int) -> AppearanceNoise:
        one = self._unit.new_ones(count)
        grain = self._unit.new_zeros(count, self._map.size, self._map.size)
        return AppearanceNoise(grain, 0.0 * one, torch.zeros_like(one, dtype=torch.int64), one)


def _parts(noise: AppearanceNoise) -> tuple[Tensor, ...]:
    return noise.grain, noise.share, noise.phantom, noise.side


def appearance_space(plan: PublicPlan, arrays: Arrays) -> AppearanceSpace:
    """The space of a released appearance model, on the CPU. Raises what `appearance_model` raises."""
    return AppearanceSpace(appearance_model(plan, arrays))

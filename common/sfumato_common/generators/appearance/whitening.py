"""Whitening by an appearance release's features: what flows and diffusion learn, and the lines that go with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato_common.generators.appearance.features import features_of
from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.generators.appearance.synthesis import AppearanceModel, appearance_model
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.generators.whitening import WhiteCodes
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.types import Arrays, ByteImages


@dataclass(frozen=True, eq=False)
class AppearanceCoder:
    """Low cosines, texture energies, exposure and pose, and images of them with what is public beside."""

    model: AppearanceModel

    def to(self, device: torch.device) -> AppearanceCoder:
        """The same on `device`; features are computed on the CPU."""
        return AppearanceCoder(self.model.to(device))

    def features(self, images: ByteImages) -> Float64:
        """See `appearance.features`."""
        return features_of(self.model.map, images)

    def noise(self, count: int, draws: Draws) -> tuple[Tensor, ...]:
        """Noise, the phantom's share, and which of the nearest phantoms it is."""
        return self.model.drawn(count, draws)

    def images(self, features: Tensor, *noise: Tensor) -> Tensor:
        """Images [N, C, S, S] of features [N, d]: their own nearest phantoms lend the lines."""
        return self.model.images_of_features(features, *noise)


def appearance_whitening(plan: PublicPlan, arrays: Arrays) -> WhiteCodes:
    """Of a released appearance model, on the CPU. Raises what `appearance_model` raises."""
    model, form = appearance_model(plan, arrays), stage_of(plan, AppearanceStage).white_form(plan)
    return WhiteCodes(AppearanceCoder(model), form, arrays["appearance/mean"], arrays["appearance/factor"])

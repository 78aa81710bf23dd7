"""Whitening by a codec's codes: what flows and diffusion learn, as many numbers whatever the image's size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato_common.generators.codec.layout import CodecLayout
from sfumato_common.generators.codec.settings import CodecStage
from sfumato_common.generators.codec.space import CodecSpace, codec_space
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.generators.whitening import WhiteCodes
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.types import Arrays, ByteImages


@dataclass(frozen=True, eq=False)
class CodecCoder:
    """Codes over public scales, and the frozen network with its grain."""

    space: CodecSpace

    def to(self, device: torch.device) -> CodecCoder:
        """The same on `device`."""
        return CodecCoder(self.space.to(device))

    def features(self, images: ByteImages) -> Float64:
        """See `codec.space.features_of`."""
        return self.space.features(images)

    def noise(self, count: int, draws: Draws) -> tuple[Tensor, ...]:
        """Grain."""
        return (self.space.draw_grain(count, draws).pixels,)

    def images(self, features: Tensor, *noise: Tensor) -> Tensor:
        """Images [N, C, S, S] of features [N, d] with grain."""
        return self.space.images_of_features(features, *noise)


def codec_whitening(plan: PublicPlan, arrays: Arrays) -> WhiteCodes:
    """Of a released codec, on the CPU. Raises VerificationError where the weights do not fit."""
    form = stage_of(plan, CodecStage).white_form(plan)
    assert CodecLayout.of(plan).features == form.numbers, "a code has the numbers that its form says"
    return WhiteCodes(CodecCoder(codec_space(plan, arrays)), form, arrays["codec/mean"], arrays["codec/factor"])

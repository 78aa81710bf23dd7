"""What a spectral stage states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import MomentsStage, Positive
from sfumato_common.generators.white_form import WhiteForm


class SpectralStage(MomentsStage):
    """One-shot class-conditional release of the first `bandwidth` x `bandwidth` DCT coefficients' moments.

    `by_site` fits every site its own classes, drawn towards the pooled ones as far as the noise demands. The radii clip
    features, and features about their mean; `charged` lets a site measure its own first, with a part of the budget.
    """

    kind: Literal["spectral"]
    bandwidth: Annotated[int, Field(ge=4, le=32)]
    clip_radius: Positive
    spread_radius: Positive = 2.0
    noise_multiplier: Positive
    by_site: bool = False
    radii: Literal["fixed", "charged"] = "fixed"

    def white_form(self, plan: PublicPlan) -> WhiteForm:
        """As large as the image: all pixels."""
        image = plan.image
        return WhiteForm(image.channels, image.size, image.size**2)

    def check(self, plan: PublicPlan) -> None:
        """The band lies within the image."""
        if self.bandwidth > plan.image.size:
            raise ValueError("spectral bandwidth is larger than the image")

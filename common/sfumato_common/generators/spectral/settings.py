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
    """Moments of low frequencies, released once."""
    bandwidth: Annotated[int, Field(ge=4, le=32)]
    """Frequencies a side (DCT) that are released."""
    clip_radius: Positive
    """L2 norm that an image's features are clipped to."""
    spread_radius: Positive = 2.0
    """The same about the released centre and class means."""
    noise_multiplier: Positive
    """Noise of the whole release, over a sensitivity of 1; left out where the plan has a budget."""
    by_site: bool = False
    """Every site gets classes of its own, drawn towards the pooled ones as far as the noise demands."""
    radii: Literal["fixed", "charged"] = "fixed"
    """`charged`: both radii are guesses, and every site measures its own within the same release."""

    def white_form(self, plan: PublicPlan) -> WhiteForm:
        """As large as the image: all pixels."""
        image = plan.image
        return WhiteForm(image.channels, image.size, image.size**2)

    def check(self, plan: PublicPlan) -> None:
        """The band lies within the image."""
        if self.bandwidth > plan.image.size:
            raise ValueError("spectral bandwidth is larger than the image")

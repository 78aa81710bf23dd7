"""What a codec stage states."""

from __future__ import annotations

from typing import Literal

from sfumato_common.codec.form import CodecForm
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import MomentsStage, Positive, PublicStart
from sfumato_common.generators.white_form import WhiteForm

_LARGEST = 3072  # numbers of a code: their pairs are what travels


class CodecStage(MomentsStage):
    """One-shot class-conditional release of moments of a public codec's codes.

    `form` is the codec's, as its `config.json` states it; `start` pins its weights. Without a start nothing is learned:
    codes are the cosines of least frequency. The network is frozen: a site refuses any other than the pinned one.
    """

    kind: Literal["codec"]
    noise_multiplier: Positive
    form: CodecForm
    start: PublicStart | None = None
    clip_radius: Positive = 1.8
    spread_radius: Positive = 0.9
    radii: Literal["fixed", "charged"] = "charged"
    by_site: bool = False

    @property
    def public_start(self) -> PublicStart | None:
        """`start`."""
        return self.start

    @property
    def foreign_detail(self) -> str | None:
        """What the network adds."""
        if self.start is None:
            return None
        return (
            "Shape and brightness follow the patients, under the guarantee above. What is fine was drawn by a network "
            "that learned it from public images: it belongs to no patient. Do not read a finding off it."
        )

    def white_form(self, plan: PublicPlan) -> WhiteForm:
        """A small image of the code's numbers; of each channel its own."""
        return WhiteForm.of_numbers(self.form.channels, self.form.cosines)

    def check(self, plan: PublicPlan) -> None:
        """The codec is for images of the plan's form; sites are counted alike."""
        if (self.form.size, self.form.channels) != (plan.image.size, plan.image.channels):
            raise ValueError("the codec's 'form' is for images of another size or number of channels")
        if self.form.numbers > _LARGEST:
            raise ValueError(f"codes of more than {_LARGEST} numbers have too many pairs to release")
        if self.by_site != plan.by_site:
            raise ValueError("'by_site' of codec and spectral stages must agree: models share their components")

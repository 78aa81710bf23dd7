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
    """Moments of a public autoencoder's codes, released once."""
    noise_multiplier: Positive
    """Noise of the whole release, over a sensitivity of 1; left out where the plan has a budget."""
    form: CodecForm
    """The codec's form, as its `config.json` has it."""
    start: PublicStart | None = None
    """The codec's weights; without them codes are the cosines of least frequency."""
    clip_radius: Positive = 1.8
    """L2 norm that an image's features are clipped to."""
    spread_radius: Positive = 0.9
    """The same about the released centre and class means."""
    radii: Literal["fixed", "charged"] = "charged"
    """`charged`: both radii are guesses, and every site measures its own within the same release."""
    by_site: bool = False
    """Every site gets classes of its own, drawn towards the pooled ones as far as the noise demands."""

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

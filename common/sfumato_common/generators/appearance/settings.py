"""What an appearance stage states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import MomentsStage, Positive
from sfumato_common.generators.white_form import WhiteForm

_PATIENTS = (
    "Overall shape, position, brightness and the strength of the texture in each sixteenth of an image follow the "
    "patients, under the guarantee above. "
)
_LINES = {
    "noise": "Everything finer is noise that was drawn: it belongs to no patient.",
    "phantom": "Everything finer, such as ribs, vessels and edges, is a drawn phantom's: it belongs to no patient.",
    "mixed": "Everything finer, such as ribs, vessels and edges, is a drawn phantom's mixed with noise: it belongs to "
    "no patient.",
}
_FRAME = " So are the black frame of a photograph and its edge."
_READ = " Do not read a finding, a device or an anatomical variant off it."


class AppearanceStage(MomentsStage):
    """One-shot class-conditional release of aligned low frequencies, local texture energies, exposure and pose.

    `coefficients` of least frequency are kept of the aligned image; left out, 144 below 48 pixels a side and 64 above.
    `alignment: chest` turns and shifts frontal radiographs onto the mean of the phantom, `fundus` photographs of the
    retina onto its right eye (left ones are mirrored first), `none` leaves images as they lie. `detail` says whose
    texture synthetic images carry: band noise, the phantom's, or both mixed image by image in random shares. `phantoms`
    is the number of phantom patients in the public pool; left out, by the image's size.
    """

    kind: Literal["appearance"]
    """Moments of aligned images, their texture and pose, released once."""
    noise_multiplier: Positive
    """Noise of the whole release, over a sensitivity of 1; left out where the plan has a budget."""
    coefficients: Annotated[int, Field(ge=16, le=400)] | None = None
    """Low frequencies that are released; left out, 144 below 48 pixels a side, and 64 above."""
    clip_radius: Positive = 1.8
    """L2 norm that an image's features are clipped to."""
    spread_radius: Positive = 0.9
    """The same about the released centre and class means."""
    radii: Literal["fixed", "charged"] = "charged"
    """`charged`: both radii are guesses, and every site measures its own within the same release."""
    by_site: bool = False
    """Every site gets classes of its own, drawn towards the pooled ones as far as the noise demands."""
    alignment: Literal["chest", "fundus", "none"] = "chest"
    """Onto which public image frontal films or photographs of eyes are laid; `none` leaves images as they lie."""
    detail: Literal["noise", "phantom", "mixed"] = "mixed"
    """Whose fine lines images show: noise, a public phantom's, or both; never a patient's."""
    phantoms: Annotated[int, Field(ge=4, le=2000)] | None = None
    """Phantom patients in the public pool; left out, 450, fewer above 128 pixels."""

    @property
    def foreign_detail(self) -> str:
        """Whose the lines of its images are."""
        return _PATIENTS + _LINES[self.detail] + (_FRAME if self.alignment == "fundus" else "") + _READ

    def white_form(self, plan: PublicPlan) -> WhiteForm:
        """A small image of one channel, of all features."""
        from sfumato_common.generators.appearance.feature_map import FeatureMap

        return WhiteForm.of_numbers(1, FeatureMap.of(plan).features)

    def check(self, plan: PublicPlan) -> None:
        """Coefficients leave room for texture; phantom detail needs a place, fundi colour; sites are counted alike."""
        if self.coefficients is not None and self.coefficients > plan.image.size**2 // 4:
            raise ValueError("'coefficients' of appearance are more than a quarter of the image's")
        if self.alignment == "none" and self.detail != "noise":
            raise ValueError("the phantom's lines need its place: without alignment 'detail' is 'noise'")
        if self.alignment == "fundus" and plan.image.channels != 3:
            raise ValueError("'alignment: fundus' is for photographs in colour: set 'channels: 3'")
        if self.by_site != plan.by_site:
            raise ValueError("'by_site' of appearance and spectral stages must agree: models share their components")

"""What a plan says once for the whole study: image form, sites, privacy, figure, gate, federation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfumato_common.generators.settings import Positive
from sfumato_common.strict import Strict
from sfumato_common.types import image_shape


class Shown(Strict):
    """What all images of the study show, in DICOM's own words (PS3.3 C.7.3.1, C.7.6.1), agreed on paper.

    A published set says it in the headers of DICOM objects, and nothing else depends on it.
    """

    modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")]
    """DICOM's Modality, such as `DX` or `CR`."""
    body_part: Annotated[str, Field(pattern=r"^[A-Z]{1,16}$")] | None = None
    """DICOM's Body Part Examined, such as `CHEST`."""
    view: Annotated[str, Field(pattern=r"^[A-Z]{1,16}$")] | None = None
    """DICOM's View Position, such as `PA`."""
    laterality: Literal["R", "L", "U", "B"] | None = None
    """DICOM's Laterality: right, left, unpaired or both."""


class ImageForm(Strict):
    """Size of the study's images: `size` pixels square, 1 or 3 channels, 8 or 16 bits a value (16 for grey only)."""

    size: Annotated[int, Field(ge=16, le=512, multiple_of=4)]
    """Pixels a side; a multiple of 4."""
    channels: Literal[1, 3] = 1
    """1 is grey, 3 is colour."""
    bits: Literal[8, 16] = 8
    """Bits a value; 16 for grey images alone."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image of integers: (S, S) grey, (S, S, 3) colour."""
        return image_shape(self.size, self.channels)

    @model_validator(mode="after")
    def _writable(self) -> ImageForm:
        if self.bits == 16 and self.channels == 3:
            raise ValueError("16 bits a value are for grey images only; write 'bits: 8', which colour cameras give")
        return self


# as `sfumato-site fingerprint` prints it: 100 bits of the sha256 of the site's signing key
Fingerprint = Annotated[str, Field(pattern=r"^[a-z2-7]{4}(-[a-z2-7]{4}){4}$")]


class SiteTerms(Strict):
    """What the consortium agreed about one site: its nominal (public, not counted) number of training patients.

    `key` is the fingerprint of the site's signing key, for plans with `secure_sum`.
    """

    nominal_patients: Annotated[int, Field(ge=10, le=10_000_000)]
    """Training patients of the site, a number that was agreed on paper and never counted."""
    key: Fingerprint | None = Field(default=None, exclude_if=lambda key: key is None)
    """Fingerprint of the site's signing key, as `sfumato-site fingerprint` prints it; asked for under `secure_sum`."""


class SecureSumTerms(Strict):
    """One-shot releases leave as sums over sites alone; `colluding` sites may side with the coordinator."""

    colluding: Annotated[int, Field(ge=1, le=127)]
    """How many other sites may side with the coordinator; the charged epsilon counts on the noise of the rest."""


class PrivacyTerms(Strict):
    """The largest (epsilon, delta) the whole study may cost a patient; the unit is the patient, always."""

    epsilon: Positive
    """The largest epsilon of the whole study."""
    delta: Annotated[float, Field(gt=0, lt=0.01)]
    """The delta that goes with it; below 1 / nominal patients of every site."""
    unit: Literal["patient"] = "patient"
    """Who is protected: the patient, with all of that patient's images."""
    adjacency: Literal["add-remove"] = "add-remove"
    """What two states of the data differ in: one patient is there, or is not."""


class UtilityTerms(Strict):
    """TSTR figure: each site's holdout patients' classifier scores as a noisy histogram of `bins` per class."""

    bins: Annotated[int, Field(ge=4, le=64)] = 10
    """Cells of the histogram a label."""
    noise_multiplier: Positive
    """Noise on each cell, over a sensitivity of 1; holdout patients pay it."""


class FederationTerms(Strict):
    """When a round counts: at least `quorum` sites within `round_deadline_s` seconds."""

    quorum: Annotated[int, Field(ge=1)]
    """The least number of answers that make a round."""
    round_deadline_s: Annotated[int, Field(ge=10, le=86_400)] = 300
    """Seconds after which a round goes on without who did not answer."""
    join_deadline_s: Annotated[int, Field(ge=5, le=86_400)] = 120
    """Seconds that the coordinator waits for sites before it begins with a quorum."""


class FormalGate(Strict):
    """The private gate on formal images: how many training patients were copied, told with Gaussian noise, and charged.

    At noise multiplier z it lets an honest set pass 99 times in 100, and sees copies of 3.6 z patients in 9 of 10.
    """

    noise_multiplier: Positive
    """Noise on the number of copied training patients, over a sensitivity of 1; training patients pay it."""

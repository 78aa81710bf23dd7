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
    body_part: Annotated[str, Field(pattern=r"^[A-Z]{1,16}$")] | None = None
    view: Annotated[str, Field(pattern=r"^[A-Z]{1,16}$")] | None = None
    laterality: Literal["R", "L", "U", "B"] | None = None


class ImageForm(Strict):
    """Size of the study's images: `size` pixels square, 1 or 3 channels, 8 or 16 bits a value (16 for grey only)."""

    size: Annotated[int, Field(ge=16, le=512, multiple_of=4)]
    channels: Literal[1, 3] = 1
    bits: Literal[8, 16] = 8

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
    key: Fingerprint | None = Field(default=None, exclude_if=lambda key: key is None)


class SecureSumTerms(Strict):
    """One-shot releases leave as sums over sites alone; `colluding` sites may side with the coordinator."""

    colluding: Annotated[int, Field(ge=1, le=127)]


class PrivacyTerms(Strict):
    """The largest (epsilon, delta) the whole study may cost a patient; the unit is the patient, always."""

    epsilon: Positive
    delta: Annotated[float, Field(gt=0, lt=0.01)]
    unit: Literal["patient"] = "patient"
    adjacency: Literal["add-remove"] = "add-remove"


class UtilityTerms(Strict):
    """TSTR figure: each site's holdout patients' classifier scores as a noisy histogram of `bins` per class."""

    bins: Annotated[int, Field(ge=4, le=64)] = 10
    noise_multiplier: Positive


class FederationTerms(Strict):
    """When a round counts: at least `quorum` sites within `round_deadline_s` seconds."""

    quorum: Annotated[int, Field(ge=1)]
    round_deadline_s: Annotated[int, Field(ge=10, le=86_400)] = 300
    join_deadline_s: Annotated[int, Field(ge=5, le=86_400)] = 120


class FormalGate(Strict):
    """The private gate on formal images: how many training patients were copied, told with Gaussian noise, and charged.

    At noise multiplier z it lets an honest set pass 99 times in 100, and sees copies of 3.6 z patients in 9 of 10.
    """

    noise_multiplier: Positive

"""What a reader yields: an image in the study's form, or the reason why a reference was skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sfumato_common.imaging import fit_square
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray, ByteImages, pixel_dtype

Split = Literal["train", "holdout"]

# other data sets' words; nothing here is tuned on a site's patients, so those meant for validation train
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "train",
    "validation": "train",
    "test": "holdout",
    "holdout": "holdout",
}
# luma of ITU-R BT.601, which is also the Y of YBR_FULL (DICOM PS3.3 C.7.6.3.1.2)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class UnreadableError(Exception):
    """One reference cannot be used; the text is the reason in the local report. Readers turn it into `Skipped`."""


@dataclass(frozen=True, eq=False)
class SiteImage:
    """One image of one patient: pixels uint8 or uint16, [S, S] or [S, S, 3], bright = dense; label = plan's index."""

    pixels: AnyArray
    label: int
    patient_id: str
    split: Split | None


@dataclass(frozen=True)
class Skipped:
    """A reference (file or row) that was not read, and why. Never leaves the site."""

    reference: str
    reason: str


def to_form(display: AnyArray, form: ImageForm) -> ByteImages:
    """Display values 0..1, [H, W] or [H, W, 3] -> uint8 or uint16 [S, S] or [S, S, 3] in the study's form.

    Padded to a square on black, area-averaged, colour to grey by luma and grey to colour by repetition. Raises
    UnreadableError for an image without any contrast.
    """
    if display.ndim == 3 and form.channels == 1:
        display = display @ _LUMA
    if float(display.max()) == float(display.min()):
        raise UnreadableError("the image is blank: all pixels are equal")
    square = fit_square(display, form.size)
    if square.ndim == 2 and form.channels == 3:
        square = np.repeat(square[..., None], 3, axis=2)
    # float32 has 24 bits: 16-bit values are exact to a 256th of a grey level
    top = np.float32(2**form.bits - 1)
    pixels: ByteImages = np.rint(np.clip(square, 0.0, 1.0) * top).astype(pixel_dtype(form.bits))
    return pixels

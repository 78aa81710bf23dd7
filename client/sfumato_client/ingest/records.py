"""What a reader yields: an image in the study's form, or the reason why a reference was skipped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.imaging import in_form, to_grey, varies
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray, ByteImages

Split = Literal["train", "holdout"]
# what is done with an image that has text in its pixels: left out, painted over, or taken without a look
TextPolicy = Literal["reject", "mask", "allow"]

# other data sets' words; nothing here is tuned on a site's patients, so those meant for validation train
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "trainvalidation": "train",
    "val": "train",
    "valid": "train",
    "validate": "train",
    "validation": "train",
    "validierung": "train",
    "dev": "train",
    "development": "train",
    "tune": "train",
    "tuning": "train",
    "test": "holdout",
    "testing": "holdout",
    "holdout": "holdout",
    "heldout": "holdout",
}
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
# DICOM's values of ViewPosition are short words (PS3.3 C.8.7.5, C.8.11.7); free text has no place in a store, and one
# letter would be taken for a side
_VIEW = re.compile("[A-Z]{2,8}")


@dataclass(frozen=True, slots=True)
class Facts:
    """What else is known of an image, to check a set by; none of it enters the store.

    `reference` is how the report calls it. `instance` and `study` are SOP and Study Instance UID, `person` the name and
    birth date of the header, `others` the patient's other identifiers in it, one a line, `device` its maker and model,
    `modality` the header's.
    """

    reference: str = ""
    instance: str = ""
    study: str = ""
    person: str = ""
    device: str = ""
    modality: str = ""
    others: str = ""


NO_FACTS = Facts()
# the reason of a file that no row names
UNLISTED = "no row in the labels table"
# reasons of rows that say again what one before them says: nothing is lost with them
LISTED_TWICE, SAME_AGAIN = "listed twice; the first row counts", "the same image again"
# the reason of an image whose patient takes part no more
WITHDRAWN = "its patient has withdrawn"


@dataclass(frozen=True, eq=False)
class SiteImage:
    """One image of one patient: pixels uint8 or uint16, [S, S] or [S, S, 3], bright = dense; label = plan's index.

    `view` says which of a patient's pictures may stand for each other (`view_name`); empty where nothing is known.
    `notes` are what the file says otherwise than it should, for the local report.
    """

    pixels: AnyArray
    label: int
    patient_id: str
    split: Split | None
    view: str = ""
    notes: tuple[str, ...] = ()
    facts: Facts = NO_FACTS


@dataclass(frozen=True)
class Skipped:
    """A reference (file or row) that was not read, and why. Never leaves the site."""

    reference: str
    reason: str


@dataclass(frozen=True)
class Kept(Skipped):
    """A reference that was not read because the store has its images, by number: row and file are as they were."""

    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stamp:
    """A row before its file was read: what it is about, its words, its file as it names it, size and time (ns) of that.

    A file that is changed while it is read has another stamp afterwards, so that it is read again.
    """

    about: str
    words: str
    file: str
    size: int
    time: int


class Stamped(list[SiteImage | Skipped]):
    """A row's results with its stamp."""

    def __init__(self, results: Iterable[SiteImage | Skipped], stamp: Stamp) -> None:
        super().__init__(results)
        self.stamp = stamp


def view_name(laterality: str, view: str) -> str:
    """`R`, `L CC`, `PA`: laterality and view position in one word each; what is not a value of theirs is not known."""
    side, position = _SIDES.get(laterality.strip().upper(), ""), view.strip().upper()
    return f"{side} {position if _VIEW.fullmatch(position) else ''}".strip()


def view_of_row(row: dict[str, str]) -> str:
    """`view_name` of a table's optional columns `laterality` and `view`. Raises UnreadableError for other values.

    A value that was written and is not understood would put an image among those of which nothing is known.
    """
    laterality, view = row.get("laterality", ""), row.get("view", "")
    if laterality and laterality.upper() not in _SIDES:
        raise UnreadableError("its laterality is none of L, R")
    if view and not _VIEW.fullmatch(view.upper()):
        raise UnreadableError("its view is no word of two to eight letters")
    return view_name(laterality, view)


def to_form(display: AnyArray, form: ImageForm, pixel: tuple[float, float] = (1.0, 1.0)) -> ByteImages:
    """Display values 0..1, [H, W] or [H, W, 3] -> uint8 or uint16 [S, S] or [S, S, 3] in the study's form.

    Padded to a square on black, area-averaged, colour to grey by luma and grey to colour by repetition. `pixel` is the
    height and width of a pixel in any unit. Raises UnreadableError for an image without any contrast.
    """
    if display.ndim == 3 and form.channels == 1:
        display = to_grey(display)
    if not varies(display):
        raise UnreadableError("the image is blank: all pixels are equal")
    return in_form(display, form.size, form.channels, form.bits, pixel)


def counted(values: Iterable[str]) -> dict[str, int]:
    """How often each value stands, most first."""
    return {value or "not known": count for value, count in Counter(values).most_common()}

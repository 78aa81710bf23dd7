"""A researcher's DICOM files, by the code that reads a hospital's (`sfumato_common.dicom`): values, shape and greys.

Needs the extra `dicom`; nothing of it is imported before a DICOM file is met.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.imaging import in_form, varies
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import Row
from sfumato_common.types import ByteImages

if TYPE_CHECKING:
    from pydicom import Dataset

HEAD = 132  # bytes of a file that tell what it is
_PREFIXES = (b"\x02\x00", b"\x08\x00")  # of a data set without preamble, as in `sfumato_common.dicom.opening`
_SUFFIXES = (".dcm", ".dicom", ".ima")
_NEEDS = ("pydicom", "imagecodecs", "simplejpeg")
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_A_YEAR = {"D": 365, "W": 52, "M": 12, "Y": 1}
_SEXES = ("F", "M", "O")
_REMEDY = "pass '--allow {}'"


def is_film(head: bytes, name: str) -> bool:
    """Whether a file is taken for DICOM (PS3.10), by its first `HEAD` bytes or, of one without preamble, its name."""
    return head[128:HEAD] == b"DICM" or head[:2] in _PREFIXES or name.lower().endswith(_SUFFIXES)


def read_film(path: Path, frame: str, form: ImageForm, allowed: Collection[str]) -> tuple[ByteImages, Row]:
    """The image of a file in `form`, and `patient`, `sex` and `age` of its header where they are known.

    `frame` is a number from 1, and empty of a file with one. `allowed` are objects that have to be allowed by name, in
    capitals. Raises DataError with the reason, ConfigError where the extra `dicom` is not installed.
    """
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise ConfigError(f"DICOM files need {missing[0]}: pip install 'sfumato-coordinator[dicom]'")
    try:
        return _film(path, frame, form, allowed)
    except UnreadableError as reason:
        raise DataError(f"'{path.name}': {reason}") from None


def _film(path: Path, frame: str, form: ImageForm, allowed: Collection[str]) -> tuple[ByteImages, Row]:
    from sfumato_common.dicom.frames import pixel_shape, undecodable
    from sfumato_common.dicom.objects import check_object
    from sfumato_common.dicom.opening import open_dicom
    from sfumato_common.dicom.pixels import display_values

    with path.open("rb") as file:
        dataset = open_dicom(file, _unsaid)
    check_object(dataset, allowed, _unsaid, _REMEDY)
    number = _frame(dataset, frame)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            display = display_values(dataset, _unsaid, number)
        shape = pixel_shape(dataset, number)
    except (UnreadableError, MemoryError):
        raise
    except Exception:  # decoders raise anything at all on broken data
        raise UnreadableError(undecodable(dataset)) from None
    if not varies(display):
        raise UnreadableError("the image is blank: all pixels are equal")
    return in_form(display, form.size, form.channels, form.bits, shape), _person(dataset)


def _unsaid(text: str) -> None:
    """What a header says otherwise than it should is a hospital's matter, and stands in its report."""


def _frame(dataset: Dataset, frame: str) -> int:
    """The place of the wanted frame."""
    from sfumato_common.dicom.elements import integer, named

    count = integer(dataset, "NumberOfFrames") or 1
    if not frame and count == 1:
        return 0
    if not frame:
        raise UnreadableError(
            f"multi-frame image: its {named('NumberOfFrames')} is {count}; write a column 'frame' in the index, 1 to "
            f"{count}"
        )
    number = frame.removesuffix(".0")
    if not number.isdecimal() or not 1 <= int(number) <= count:
        raise UnreadableError(f"it has no frame '{frame}'; its frames are 1 to {count}")
    return int(number) - 1


def _person(dataset: Dataset) -> Row:
    """Patient ID, sex and age of the header (PS3.3 C.7.1.1, C.7.2.2); what is no value of theirs is not known."""
    patient, sex, age = (str(dataset.get(name) or "").strip(" \0\t\r\n") for name in _PERSON)
    years = _AGE.fullmatch(age.upper())
    known = {"patient": patient, "sex": sex.upper() if sex.upper() in _SEXES else ""}
    return {**known, "age": str(int(years[1]) // _A_YEAR[years[2]]) if years else ""}


_PERSON = ("PatientID", "PatientSex", "PatientAge")

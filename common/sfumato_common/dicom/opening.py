"""DICOM files as they come: without preamble, without an end, cut off."""

from __future__ import annotations

import io
import warnings
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from sfumato_common.dicom.elements import Note, named
from sfumato_common.dicom.marks import kind_of_file
from sfumato_common.dicom.unreadable import UnreadableError

# tags that a data set without preamble can begin with: group 0002 or 0008
_FIRST = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
_MARK, _SOUGHT = b"DICM", 4096  # the mark, and how far into a file it is looked for
_META = 132  # where the meta header begins, after the preamble and its mark
_PIXELS = (b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff", b"\xe0\x7f\x10\x00OW\x00\x00\xff\xff\xff\xff")
_PICTURES = {b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"II*\0": "a TIFF picture"}
_PICTURES |= {b"MM\0*": "a TIFF picture"}
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def open_dicom(file: BinaryIO, note: Note) -> Dataset:
    """The data set of an open file. Raises UnreadableError for what is none, and for one that is cut off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of every odd header; what matters is in the notes
        dataset: Dataset
        try:
            dataset = dcmread(file)
        except InvalidDicomError:
            dataset = _without_preamble(file, note)
        except Exception:
            raise UnreadableError("the file is damaged: its header cannot be read") from None
        if not len(dataset):
            file.seek(0)
            return _without_end(file.read(), note)
        return dataset if "PixelData" in dataset or "SOPClassUID" in dataset else _otherwise(file, dataset)


def _otherwise(file: BinaryIO, dataset: Dataset) -> Dataset:
    """A data set that is not written as its meta header says, read by its own first bytes."""
    file.seek(_META)
    head = file.read(12)
    if head[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        return dataset
    file.seek(_META + 12 + int.from_bytes(head[8:], "little"))
    try:
        found = dcmread(io.BytesIO(file.read()), force=True)
    except Exception:  # neither this way nor the other: what is known of it stands
        return dataset
    return found if "PixelData" in found else dataset


def _without_preamble(file: BinaryIO, note: Note) -> Dataset:
    file.seek(0)
    begin = file.read(_SOUGHT)
    place = -1 if begin.startswith(b"PK") else begin.find(_MARK)  # not into an archive
    if place >= 0 and begin[place + 4 : place + 6] in _FIRST:
        # the preamble is missing, or something stands before it: a transfer's head, a mark of UTF-8
        file.seek(place)
        return _behind(bytes(_META - 4) + file.read(), note)
    begin = begin[:_META]
    # the preamble's zeros may be there without the mark that ends them
    start = _META - 4 if len(begin) == _META and not begin[:-4].strip(b"\0") else 0
    file.seek(start)
    try:
        whole = begin[start : start + 2] in _FIRST
        dataset = dcmread(io.BytesIO(file.read()), force=True) if whole else Dataset()
    except Exception:
        raise UnreadableError("not a DICOM file, or one without preamble that is damaged") from None
    if "SOPClassUID" not in dataset and "PixelData" not in dataset:
        raise UnreadableError(f"not a DICOM file (no preamble, and no data set without one): it is {_kind(begin)}")
    note("it has no preamble")
    return dataset


def _kind(begin: bytes) -> str:
    """What a file is by its beginning."""
    return next((words for mark, words in _PICTURES.items() if begin.startswith(mark)), kind_of_file(begin))


def _behind(data: bytes, note: Note) -> Dataset:
    try:
        dataset: Dataset = dcmread(io.BytesIO(data))
    except Exception:
        raise UnreadableError("the file is damaged: its header cannot be read") from None
    note("its preamble is missing, or something stands before it")
    return dataset


def _without_end(data: bytes, note: Note) -> Dataset:
    """A file whose compressed pixel data stop with their last fragment: what is missing is their end alone."""
    start = max(data.find(mark) for mark in _PIXELS)
    if start < 0:
        raise UnreadableError("the file is damaged or cut off: its header cannot be read")
    place = start + len(_PIXELS[0])
    while data[place : place + 4] == _ITEM and place + 8 <= len(data):
        place += 8 + int.from_bytes(data[place + 4 : place + 8], "little")
    if place != len(data):
        raise UnreadableError(f"the file is cut off in its {named('PixelData')}")
    note(f"its {named('PixelData')} has no end: read as whole")
    return dcmread(io.BytesIO(data + _END))

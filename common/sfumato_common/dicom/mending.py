"""Headers that leave out or misstate how their pixels lie, put right where the file itself shows what is meant.

What is put right is noted for the local report. What the file does not show is refused by the element's name: nobody
can tell from the pixels whether black is air.
"""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import JPEGTransferSyntaxes, RLELossless

from sfumato_common.dicom.elements import Note, integer, named, plain, word
from sfumato_common.dicom.jpeg import JpegFrame, jpeg_frame
from sfumato_common.dicom.streams import mend_transfer_syntax
from sfumato_common.dicom.unreadable import UnreadableError

GREY = {"MONOCHROME1", "MONOCHROME2"}
PALETTE = "PALETTE COLOR"
COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
# by their letters alone: some write MONOCHROME 2
_CALLED = {plain(name): name for name in (*GREY, *COLOUR, PALETTE)}
_LARGEST = 2**28  # samples: a header may claim any size, a chest radiograph has some 2**24
_WIDTHS = (1, 8, 16, 32, 64)
_JPEG = {str(syntax) for syntax in JPEGTransferSyntaxes}


def mend(dataset: Dataset, note: Note) -> str:
    """Make `dataset` decodable as it is meant; its photometric interpretation. Raises UnreadableError."""
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableError("no pixel data in the file")
    mend_transfer_syntax(dataset, note)
    photometric = _photometric(dataset)
    _size(dataset)
    if "PixelData" not in dataset:
        return photometric
    _samples(dataset, photometric, note)
    _bits(dataset, note)
    syntax = dataset.file_meta.TransferSyntaxUID
    if str(syntax) in _JPEG and (frame := _stream(dataset)):
        _as_the_stream_says(dataset, frame, note)
    return _colour_of_grey(dataset, photometric, note)


def _photometric(dataset: Dataset) -> str:
    written = word(dataset, "PhotometricInterpretation")
    photometric = _CALLED.get(plain(written), written)
    what = named("PhotometricInterpretation")
    if not photometric:
        raise UnreadableError(f"its {what} is missing: nobody can tell which values are black")
    if photometric not in GREY | COLOUR | {PALETTE}:
        raise UnreadableError(f"its {what} is none that is read here")
    dataset.PhotometricInterpretation = photometric
    return photometric


def _size(dataset: Dataset) -> None:
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    if not 0 < rows * columns * (integer(dataset, "SamplesPerPixel") or 1) <= _LARGEST:
        raise UnreadableError(f"its {named('Rows')} and {named('Columns')} are missing or too large")
    dataset.Rows, dataset.Columns = rows, columns  # one value each, whatever was written


def _samples(dataset: Dataset, photometric: str, note: Note) -> None:
    samples = integer(dataset, "SamplesPerPixel")
    if samples not in (None, 0, 1, 3):
        raise UnreadableError(f"its {named('SamplesPerPixel')} is {samples}; only 1 and 3 are read")
    if not samples:
        dataset.SamplesPerPixel = 3 if photometric in COLOUR else 1
        note(f"its {named('SamplesPerPixel')} is missing: taken as {dataset.SamplesPerPixel}")
    if dataset.SamplesPerPixel == 3 and integer(dataset, "PlanarConfiguration") is None:
        dataset.PlanarConfiguration = 0


def _bits(dataset: Dataset, note: Note) -> None:
    """Bits Allocated, Bits Stored, High Bit and Pixel Representation: each from the others where it is missing."""
    allocated = integer(dataset, "BitsAllocated")
    if allocated is None and (allocated := _allocated_by_size(dataset)):
        dataset.BitsAllocated = allocated
        note(f"its {named('BitsAllocated')} is missing: {allocated} by the size of the pixel data")
    if allocated not in _WIDTHS:
        raise UnreadableError(f"its {named('BitsAllocated')} is missing or no width that pixels have")
    stored, high = integer(dataset, "BitsStored"), integer(dataset, "HighBit")
    if stored is None:
        dataset.BitsStored = allocated if high is None else high + 1
        note(f"its {named('BitsStored')} is missing: taken as {dataset.BitsStored}")
    else:
        dataset.BitsStored = stored  # one value, whatever was written
    if not 0 < dataset.BitsStored <= allocated:
        raise UnreadableError(f"its {named('BitsStored')} is more than its {named('BitsAllocated')}")
    dataset.HighBit = dataset.BitsStored - 1 if high is None else high
    signed = integer(dataset, "PixelRepresentation")
    if signed not in (None, 0, 1):
        raise UnreadableError(f"its {named('PixelRepresentation')} is neither 0 nor 1")
    dataset.PixelRepresentation = signed or 0
    if signed is None:
        note(f"its {named('PixelRepresentation')} is missing: taken as unsigned")


def _allocated_by_size(dataset: Dataset) -> int | None:
    samples = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * (integer(dataset, "NumberOfFrames") or 1)
    of_length = {samples + samples % 2: 8, 2 * samples: 16}
    return None if dataset.file_meta.TransferSyntaxUID.is_encapsulated else of_length.get(len(dataset.PixelData))


def shift_of(dataset: Dataset, note: Note) -> int:
    """By how many bits stored values lie too high (High Bit, PS3.5 8.1.1).

    A compressed stream has its values where they belong, whatever the header says.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    above = int(dataset.HighBit) + 1 - int(dataset.BitsStored)
    if above <= 0 or (syntax.is_compressed and syntax != RLELossless):
        return 0
    if int(dataset.HighBit) >= int(dataset.BitsAllocated):
        raise UnreadableError(f"its {named('HighBit')} lies outside its {named('BitsAllocated')}")
    note(f"its {named('HighBit')} is {int(dataset.HighBit)} of {int(dataset.BitsStored)} bits stored: shifted down")
    return above


def _stream(dataset: Dataset) -> JpegFrame | None:
    try:
        return jpeg_frame(get_frame(dataset.PixelData, 0, number_of_frames=integer(dataset, "NumberOfFrames") or 1))
    except Exception:  # whatever is wrong with the fragments, decoding says it
        return None


def _as_the_stream_says(dataset: Dataset, frame: JpegFrame, note: Note) -> None:
    """A JPEG stream knows its precision and components; a header beside it may be somebody else's."""
    if frame.precision <= 8 < dataset.BitsAllocated or dataset.BitsStored < frame.precision <= 16:
        note(f"its {named('BitsStored')} is {dataset.BitsStored}, its JPEG stream has {frame.precision}: the stream's")
        dataset.BitsAllocated = 8 if frame.precision <= 8 else 16
        _set(dataset, BitsStored=frame.precision, HighBit=frame.precision - 1)
    if frame.components != dataset.SamplesPerPixel and frame.components in (1, 3):
        found, said = frame.components, dataset.SamplesPerPixel
        note(f"its {named('SamplesPerPixel')} is {said}, its JPEG stream has {found}: the stream's")
        colour = "RGB" if frame.rgb else "YBR_FULL"
        _set(dataset, SamplesPerPixel=found, PhotometricInterpretation=colour if found == 3 else "MONOCHROME2")
        if found == 3:
            dataset.PlanarConfiguration = 0


def _set(dataset: Dataset, **elements: Any) -> None:
    for name, value in elements.items():
        setattr(dataset, name, value)


def _colour_of_grey(dataset: Dataset, photometric: str, note: Note) -> str:
    """A grey header with three samples a pixel holds a colour picture of grey; the others are what they say."""
    now = str(dataset.PhotometricInterpretation)
    if photometric not in GREY:
        return now
    if dataset.SamplesPerPixel == 3 and now in GREY:
        note(f"its {named('PhotometricInterpretation')} is {photometric} with three samples a pixel: read as RGB")
        dataset.PhotometricInterpretation = now = "RGB"
    if now in COLOUR and photometric == "MONOCHROME1":
        raise UnreadableError(f"its {named('PhotometricInterpretation')} is MONOCHROME1, its pixels are of colour")
    return photometric if now in GREY else now

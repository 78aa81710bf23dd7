"""Compressed frames to plain ones, by imagecodecs: JPEG of 8 to 16 bits, JPEG-LS, JPEG 2000, HTJ2K, JPEG XL.

One family of decoders for all of them, and none that ends the process on a broken stream. RLE and deflate are
pydicom's. Colour of JPEG comes as it was stored, so that stream and header can be held against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.uid import ExplicitVRLittleEndian

from sfumato_common.dicom.elements import Note, integer, named, tag_of
from sfumato_common.dicom.jpeg import has_end, jpeg_frame, looks_like_ybr, require_whole
from sfumato_common.dicom.streams import FAMILIES, JPEG_8_TO_16, JPEG_2000, JPEG_LS, JPEG_XL, is_transformed
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.dicom.words import edges
from sfumato_common.types import AnyArray

_SURELY = 0.7  # the edges of a picture, of those of one that folds: else the header counts
_ALLOCATED = {1: 8, 2: 16, 4: 32}


def is_read_here(syntax: str) -> bool:
    """Whether frames of this transfer syntax are decoded by this module."""
    return any(syntax in family for family in FAMILIES)


def plain_frame(dataset: Dataset, frame: int, note: Note) -> Dataset:
    """A data set like `dataset` whose pixel data are frame `frame` alone, uncompressed; `dataset` itself if it is so.

    Raises UnreadableError for a stream of another size than the header's; decoders raise what they like.
    """
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if not is_read_here(syntax):
        return dataset
    count = integer(dataset, "NumberOfFrames") or 1
    stream = get_frame(dataset.PixelData, frame, number_of_frames=count)
    single = Dataset()
    single.update(dataset)
    samples = _decode(single, stream, syntax, note)
    expected = (integer(dataset, "Rows"), integer(dataset, "Columns"))
    if samples.shape[:2] != expected or samples.ndim != (3 if single.SamplesPerPixel == 3 else 2):
        raise UnreadableError(other_shape())
    _make_plain(single, samples, note)
    return single


def other_shape() -> str:
    """The reason of pixel data that are not as large as the header says."""
    what = f"{named('SamplesPerPixel')}, {named('Rows')} and {named('Columns')}"
    return f"its {named('PixelData')} do not have the shape that its {what} say"


def _decode(single: Dataset, stream: bytes, syntax: str, note: Note) -> AnyArray:
    if syntax in JPEG_8_TO_16:
        return _jpeg(single, stream, note)
    readers: list[tuple[tuple[str, ...], Callable[..., Any]]] = [
        (JPEG_LS, imagecodecs.jpegls_decode),
        (JPEG_2000, imagecodecs.jpeg2k_decode),
        (JPEG_XL, imagecodecs.jpegxl_decode),
    ]
    reader = next(reader for syntaxes, reader in readers if syntax in syntaxes)
    samples = np.asarray(reader(stream))
    _count_samples(single, samples, note)
    # the codestream's own colour transform was undone
    undone = syntax in JPEG_XL or str(single.PhotometricInterpretation) in ("YBR_RCT", "YBR_ICT", "RGB")
    if samples.ndim == 3 and (undone or (syntax in JPEG_2000 and is_transformed(stream))):
        _replace(single, PhotometricInterpretation="RGB")
    return samples


def _count_samples(single: Dataset, samples: AnyArray, note: Note) -> None:
    """Grey or colour, as a decoded stream is. Raises UnreadableError where the header would turn its polarity."""
    found, said = 3 if samples.ndim == 3 else 1, int(single.SamplesPerPixel)
    if found == said or samples.shape[2:] not in ((), (3,)):
        return
    what, photometric = named("PhotometricInterpretation"), str(single.PhotometricInterpretation)
    if photometric == "MONOCHROME1":
        raise UnreadableError(f"its {what} is MONOCHROME1, its pixels are of colour")
    note(f"its {named('SamplesPerPixel')} is {said}, its stream has {found}: the stream's")
    _replace(single, SamplesPerPixel=found, PhotometricInterpretation="RGB" if found == 3 else "MONOCHROME2")


def _jpeg(single: Dataset, stream: bytes, note: Note) -> AnyArray:
    """Samples as stored; `single` says their colour by the word of the stream, of the header, or of the data."""
    frame, said = jpeg_frame(stream), str(single.PhotometricInterpretation)
    ended, stream = has_end(stream), require_whole(stream, frame)
    if single.SamplesPerPixel != 3:
        grey = np.asarray(imagecodecs.jpeg8_decode(stream))
        if not ended and len(grey) > 1 and np.array_equal(grey[-1], grey[-2]):  # decoders paint what is missing so
            raise UnreadableError("its JPEG stream is damaged or cut off")
        return grey
    samples = np.asarray(imagecodecs.jpeg8_decode(stream, colorspace="YCBCR", outcolorspace="YCBCR"))
    rgb = frame.rgb if frame is not None else None
    if rgb is None:
        rgb = said == "RGB" and not (samples.dtype == np.uint8 and looks_like_ybr(samples))
    if rgb != (said == "RGB"):
        found = "RGB" if rgb else "YBR_FULL"
        note(f"its {named('PhotometricInterpretation')} is {said}, its samples are {found}: read as such")
    _replace(single, PhotometricInterpretation="RGB" if rgb else "YBR_FULL")
    return samples


def _make_plain(single: Dataset, samples: AnyArray, note: Note) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    single.file_meta = meta
    allocated = _ALLOCATED[samples.dtype.itemsize]
    if samples.dtype.kind == "i" and not single.PixelRepresentation:
        note(f"its {named('PixelRepresentation')} is unsigned, its stream is signed: the stream's")
        _replace(single, PixelRepresentation=1)
    stored = min(int(single.BitsStored), allocated)
    if samples.dtype.kind == "u" and single.PixelRepresentation and _is_unsigned(samples, stored):
        note(f"its {named('PixelRepresentation')} is signed, its stream is unsigned: the stream's")
        _replace(single, PixelRepresentation=0)
    if samples.dtype.kind == "u" and int(samples.max()) >= 2**stored:
        stored = allocated
    _replace(single, BitsAllocated=allocated, BitsStored=stored, HighBit=stored - 1, NumberOfFrames=1)
    if samples.ndim == 3:
        _replace(single, PlanarConfiguration=0)
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    single[tag_of("PixelData")] = DataElement(tag_of("PixelData"), "OW" if allocated > 8 else "OB", data)


def _is_unsigned(samples: AnyArray, bits: int) -> bool:
    """Whether unsigned samples are meant so: as signed numbers of so many bits they would fold, and jump."""
    above = samples.dtype.itemsize * 8 - bits
    if int(samples.max()) < 2 ** (bits - 1):
        return False
    signed = (samples << above).view(f"i{samples.dtype.itemsize}") >> above
    return edges(samples) < _SURELY * edges(signed)


def _replace(single: Dataset, **elements: Any) -> None:
    """New elements, since `single` shares those that it has with the data set that it was made from."""
    for keyword, value in elements.items():
        single[tag_of(keyword)] = DataElement(tag_of(keyword), dictionary_VR(keyword), value)

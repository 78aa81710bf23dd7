"""DICOM files that say what they are in the wrong place, in too few bits, in another colour, or not as a file."""
# ruff: noqa: E501 - a row a case

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from sfumato_common.imaging import fit_square
from support.dicoms import lut_item, make, save
from support.others.dicom_frames import group
from support.others.dicom_made import case, ramp, raw, texts, windowed
from support.others.dicom_streams import jpeg, luma, tinted
from support.others.picture import SIDE, Case, Display, stored, truth

PLAIN_SYNTAX = b"1.2.840.10008.1.2.1\0"


def grouped(dataset: Dataset, shared: dict[str, Any], own: dict[str, Any] | None = None) -> Dataset:
    """With functional groups, the frame's `own` among them."""
    dataset.NumberOfFrames = 1
    dataset.SharedFunctionalGroupsSequence = Sequence([group(**shared)])
    if own is not None:
        dataset.PerFrameFunctionalGroupsSequence = Sequence([group(**own)])
    return dataset


def groups() -> Iterator[Case]:
    """Functional groups that say nothing beside a header, or another group, that does."""
    v, wide = stored(12), {"WindowCenter": 1000, "WindowWidth": 800}
    said = make(v, bits=12, RescaleSlope="1", RescaleIntercept="-1000", **wide)
    nothing = {"PixelValueTransformationSequence": {}, "FrameVOILUTSequence": {}}
    yield case("groups of nothing", grouped(said, nothing), windowed(v - 1000.0, 1000, 800))
    empty = {"FrameVOILUTSequence": {"WindowCenter": None, "WindowWidth": None}}
    both = grouped(make(v, bits=12), {"FrameVOILUTSequence": wide}, empty)
    yield case("groups empty of a frame", both, windowed(v, 1000, 800))
    squeezed = np.rint(truth()[::2] * 255).astype(np.uint8)
    tall = fit_square((squeezed / 255).astype(np.float32), SIDE, (2.0, 1.0))
    thick = grouped(make(squeezed, PixelSpacing=[0.4, 0.2]), {"PixelMeasuresSequence": {"SliceThickness": "1"}})
    yield case("groups without spacing", thick, tall)


def padded(values: np.ndarray, bits: int, value: int, vr: str = "US", photometric: str = "MONOCHROME2") -> Case:
    """Rows of a padding value that stored bits have no room for."""
    outside, inner = np.zeros(values.shape, bool), values[4:]
    outside[:4] = True
    words = values.copy()
    words[outside] = value
    dataset = make(words, photometric, bits)
    raw(dataset, "PixelPaddingValue", vr, (value % 2**16).to_bytes(2, "little"))
    shown = ramp(values, inner.min(), inner.max())
    shown = 1 - shown if photometric == "MONOCHROME1" else shown
    return case(f"padding {value} of {bits} {vr} {photometric}", dataset, np.where(outside, 0, shown))


def words() -> Iterator[Case]:
    """Bits that the header does not count, padding outside of them, and elements that hold too many values."""
    t, v12 = truth(), stored(12)
    yield padded(np.clip(v12, 100, 4000), 12, 65535)
    yield padded(np.clip(v12, 100, 4000), 12, 65535, photometric="MONOCHROME1")
    yield padded(np.clip(stored(14), 100, 16000), 14, 32768)
    yield padded(np.clip(stored(12, signed=True), -1900, 1900), 12, -32768, "SS")
    yield padded(np.clip(stored(12, signed=True), -1900, 1900), 12, -32768)
    for bits, width in ((10, 12), (8, 12), (12, 16), (14, 16), (11, 12)):
        yield case(f"bits stored {bits} of {width}", make(stored(width), bits=bits), t)
        yield case(f"bits stored {bits} of {width} 1", make(stored(width), "MONOCHROME1", bits), 1 - t)
    yield case("bits stored 12 of signed 16", make(stored(16, signed=True), bits=12), t)
    yield case(
        "bits stored window", texts(v12, bits=10, WindowCenter="1000", WindowWidth="800"), windowed(v12, 1000, 800)
    )
    noise = np.random.default_rng(0).integers(0, 16, (SIDE, SIDE)).astype(np.uint16) << 12
    yield case("bits stored noise above", make(v12 | noise, bits=12), t)
    border = v12.copy()
    border[:, -6:] = 2**16 - 1  # outside the beam, and nobody says so
    yield case("bits stored border above", make(border, bits=12), np.where(border > 4095, 1, t))
    speckled = np.where(np.random.default_rng(0).random((SIDE, SIDE)) < 0.1, 2**16 - 1, v12).astype(np.uint16)
    yield case("bits stored speckles above", make(speckled, bits=12), np.where(speckled > 4095, 1, t))
    for keyword, value in (
        ("BitsStored", b"\x0c\0\x0c\0"),
        ("HighBit", b"\x0b\0\x0b\0"),
        ("SamplesPerPixel", b"\0\0"),
        ("Rows", b"\x20\0\x20\0"),
    ):
        raw(dataset := make(v12, bits=12), keyword, "US", value)
        yield case(f"values of {keyword}", dataset, t)
    raw(dataset := make(v12, bits=12), "PixelRepresentation", "CS", b"0 ")
    yield case("values of PixelRepresentation", dataset, t)
    for number in (2, 65535):
        raw(dataset := make(v12, bits=12), "PixelRepresentation", "US", number.to_bytes(2, "little"))
        yield case(f"representation {number}", dataset, r"\(0028,0103\)")
    dataset = make(np.dstack([stored(8)] * 3), "RGB")
    dataset.SamplesPerPixel = 4
    yield case("four samples", dataset, r"\(0028,0002\)")


def colours() -> Iterator[Case]:
    """Uncompressed colours that are another kind than they say, or of another length."""
    grey, colour = np.dstack([stored(8)] * 3), tinted()
    for name, values in (("grey", grey), ("tinted", colour)):
        ybr, shown = np.asarray(Image.fromarray(values).convert("YCbCr")), luma(values)
        yield case(f"colours rgb is ybr {name}", make(ybr, "RGB"), shown, 2.5)
        yield case(f"colours ybr is rgb {name}", make(values, "YBR_FULL"), shown, 2.5)
        yield case(f"colours ybr {name}", make(ybr, "YBR_FULL"), shown, 2.5)
        yield case(f"colours rgb {name}", make(values, "RGB"), shown, 2.5)
        yield case(f"colours 422 is whole {name}", make(ybr, "YBR_FULL_422"), shown, 2.5)
        halved = make(ybr, "YBR_FULL")
        pairs = [ybr[:, 0::2, 0], ybr[:, 1::2, 0], ybr[:, 0::2, 1], ybr[:, 0::2, 2]]
        halved.PixelData = np.stack(pairs, -1).astype(np.uint8).tobytes()
        yield case(f"colours whole is 422 {name}", halved, shown, 4)


def tables_and_markers() -> Iterator[Case]:
    """Lookup tables that show nothing beside a window that does, and markers of more than a few pixels."""
    t, v = truth(), stored(12)
    for name, item in (("zeros", lut_item(0, np.zeros(4096, int), 12)), ("far", lut_item(30000, np.arange(4096), 12))):
        dataset = make(v, bits=12, WindowCenter=1000, WindowWidth=800)
        dataset.VOILUTSequence = Sequence([item])
        yield case(f"lut of {name}", dataset, windowed(v, 1000, 800))
    values = np.kron(np.rint(t * 1000).astype(np.uint16), np.ones((16, 16), np.uint16))
    for name, rows, photometric in (
        ("text", 20, "MONOCHROME2"),
        ("plate", 60, "MONOCHROME2"),
        ("plate", 60, "MONOCHROME1"),
    ):
        marked = values.copy()
        marked[-rows:, -60:] = 65535
        found = t if photometric == "MONOCHROME2" else 1 - t
        yield case(f"marker {name} {photometric}", make(marked, photometric), found, 5)


def containers() -> Iterator[Case]:
    """What stands before a file or around it, and streams that are not cut into items."""
    t, v = truth(), stored(12)

    def file(name: str, change: Callable[[bytes], bytes], shown: Display | str = t, of: Dataset | None = None) -> Case:
        def write(place: Path) -> None:
            save(of if of is not None else make(v, bits=12), place)
            place.write_bytes(change(place.read_bytes()))

        return Case(f"container {name}", write, shown, {}, 3)

    yield file("mark first", lambda data: data[128:])
    yield file("more nulls", lambda data: b"\0" * 128 + data)
    yield file("head of a transfer", lambda data: b"Content-Type: application/dicom\r\n\r\n" + data)
    yield file("mark of utf-8", lambda data: b"\xef\xbb\xbf" + data)
    yield file("end of a transfer", lambda data: data + b"\r\n--boundary--\r\n")
    yield file("gzip", gzip.compress, "gzip")
    yield file("zip", _zipped, "zip")
    deflated = make(v, bits=12)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    yield file("deflated", lambda data: data, of=deflated)
    for name, begin, words_for in (("png", b"\x89PNG\r\n\x1a\n", "PNG"), ("page", b"<html>login</html>", "HTML"),
                                   ("jpeg", b"\xff\xd8\xff\xe0", "JPEG"), ("nothing", b"", "empty"), ("pdf", b"%PDF-1.7", "PDF")):  # fmt: skip
        yield file(name, lambda _, begin=begin: begin, f"not a DICOM file.*{words_for}")
    for name, stream, values in (
        ("jpeg", jpeg(stored(8)), stored(8)),
        ("jpeg 2000", imagecodecs.jpeg2k_encode(v, level=0, reversible=True), v),
        ("jpeg-ls", imagecodecs.jpegls_encode(v), v),
    ):
        dataset = make(values, bits=8 if values.dtype == np.uint8 else 12)
        dataset.PixelData = stream + b"\0" * (len(stream) % 2)
        yield file(f"{name} without items", lambda data: data, of=dataset)
        dataset = make(values, bits=8 if values.dtype == np.uint8 else 12)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        yield file(f"{name} in items says plain", _says_plain, of=dataset)


def _zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.dcm", data)
    return out.getvalue()


def _says_plain(data: bytes) -> bytes:
    return data.replace(b"1.2.840.10008.1.2.4.50", PLAIN_SYNTAX + b"\0\0", 1)


def all_cases() -> list[Case]:
    """All of this module."""
    makers = (groups, words, colours, tables_and_markers, containers)
    return [each for maker in makers for each in maker()]

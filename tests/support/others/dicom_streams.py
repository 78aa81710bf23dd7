"""DICOM files as containers of compressed streams: what a stream says against its header, and how it is cut."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from support.dicoms import make, save
from support.others.dicom_made import case, windowed
from support.others.picture import Case, Display, stored, truth

J = "1.2.840.10008.1.2.4."


def streamed(
    name: str, header: Dataset, syntax: str, stream: bytes, shown: Display | str, tolerance: float = 3.0
) -> Case:
    """A case of one compressed frame under a header."""
    header.file_meta.TransferSyntaxUID = J + syntax if len(syntax) < 4 else syntax
    header.PixelData = encapsulate([stream])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    return case(name, header, shown, tolerance)


def jpeg(values: np.ndarray, **terms: Any) -> bytes:
    """Baseline by Pillow."""
    out = io.BytesIO()
    Image.fromarray(values).save(out, "JPEG", quality=98, **terms)
    return out.getvalue()


def bare(stream: bytes) -> bytes:
    """A JPEG without its APP markers."""
    out, place = bytearray(stream[:2]), 2
    while stream[place + 1] != 0xDA:
        length = int.from_bytes(stream[place + 2 : place + 4], "big")
        if not 0xE0 <= stream[place + 1] <= 0xEF:
            out += stream[place : place + 2 + length]
        place += 2 + length
    return bytes(out) + stream[place:]


def tinted() -> np.ndarray:
    """A colour picture, uint8 [S, S, 3]."""
    t = truth()
    return np.rint(255 * np.dstack([t, 0.8 * t + 0.1, 0.5 * t + 0.05])).astype(np.uint8)


def luma(colour: np.ndarray) -> Display:
    """Grey of a colour picture, ITU-R BT.601."""
    return np.asarray(colour @ np.array([0.299, 0.587, 0.114]) / 255)


def streams() -> Iterator[Case]:
    """Streams against their headers."""
    t, v8, v12, v16 = truth(), stored(8), stored(12), stored(16)
    colour = tinted()
    for said, how, terms in (
        ("RGB", "4:2:0 bare", {"subsampling": 2}),
        ("RGB", "4:4:4 bare", {"subsampling": 0}),
        ("YBR_FULL", "4:4:4 bare", {"subsampling": 0}),
        ("YBR_FULL_422", "4:2:2 bare", {"subsampling": 1}),
        ("YBR_FULL_422", "progressive", {"progressive": True}),
        ("YBR_PARTIAL_420", "4:2:0", {"subsampling": 2}),
    ):
        stream = jpeg(colour, **terms)
        yield streamed(
            f"jpeg-rgb-lies {said} {how}",
            make(colour, said),
            "50",
            bare(stream) if "bare" in how else stream,
            luma(colour),
        )
    for said in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        yield streamed(
            f"jpeg-rgb-lies {said} is rgb", make(colour, said), "50", jpeg(colour, keep_rgb=True), luma(colour)
        )
    yield streamed("jpeg-rgb-lies jfif rgb", make(colour, "RGB"), "50", jpeg(colour), luma(colour))
    header = make(v12, bits=12, WindowCenter=128, WindowWidth=256)
    yield streamed("jpeg-grey-bits-lie 8 in 12 window", header, "50", jpeg(v8), windowed(v8, 128, 256))
    for width in (10, 14, 16):
        yield streamed(f"jpeg-grey-bits-lie 8 in {width}", make(stored(width), bits=width), "50", jpeg(v8), t)
    yield streamed("jpeg-grey-bits-lie inverted", make(v12, "MONOCHROME1", 12), "50", jpeg(v8), 1 - t)
    twelve = imagecodecs.jpeg8_encode(v12, level=98, bitspersample=12)
    yield streamed("jpeg-extended 12", make(v12, bits=12), "51", twelve, t)
    yield streamed("jpeg-extended 12 says 8", make(v8), "51", twelve, t)
    yield streamed("jpeg-extended 12 says 16", make(v16), "51", twelve, t)
    yield streamed("jpeg-extended holds 8", make(v12, bits=12), "51", jpeg(v8), t)
    yield streamed("jpeg-baseline holds 12", make(v12, bits=12), "50", twelve, t)
    for width in (8, 10, 12, 16):
        values = stored(width)
        lossless = imagecodecs.ljpeg_encode(values, bitspersample=width)
        yield streamed(f"jpeg-lossless {width}", make(values, bits=width), "70", lossless, t)
        yield streamed(f"jpeg-lossless {width} says 16", make(v16), "57", lossless, t)
    yield streamed("jpeg-lossless 12 says 8", make(v8), "70", imagecodecs.ljpeg_encode(v12, bitspersample=12), t)
    signed = stored(16, signed=True)
    lossless = imagecodecs.ljpeg_encode(signed.view(np.uint16), bitspersample=16)
    yield streamed("jpeg-lossless signed", make(signed), "70", lossless, t)
    signed = stored(12, signed=True)
    lossless = imagecodecs.ljpeg_encode(signed.view(np.uint16) & np.uint16(0xFFF), bitspersample=12)
    yield streamed("jpeg-lossless signed 12", make(signed, bits=12), "70", lossless, t)
    for values, width, says in ((v12, 12, 16), (v12, 12, 12), (v8, 8, 16), (v16, 16, 12), (v12, 12, 8)):
        for syntax, encode in (
            ("80", lambda values, width: imagecodecs.jpegls_encode(values)),
            (
                "90",
                lambda values, width: imagecodecs.jpeg2k_encode(values, reversible=True, level=0, bitspersample=width),
            ),
        ):
            header = make(v8 if says == 8 else v16, bits=says)
            yield streamed(
                f"jpeg-grey-bits-lie {syntax}: {width} says {says}", header, syntax, encode(values, width), t
            )
    for values in (stored(12, signed=True), stored(16, signed=True)):
        stream = imagecodecs.jpeg2k_encode(values, reversible=True, level=0)
        yield streamed(f"j2k signed {values.min()}", make(values, bits=16), "90", stream, t)
        header = make(values.view(np.uint16), bits=16)
        yield streamed(f"j2k signed says unsigned {values.min()}", header, "90", stream, t)
    for syntax, stream in (
        ("80", imagecodecs.jpegls_encode(colour)),
        ("90", imagecodecs.jpeg2k_encode(colour, reversible=True, level=0, mct=True)),
        ("91", imagecodecs.jpeg2k_encode(colour, reversible=True, level=0, mct=False)),
    ):
        yield streamed(f"colour stream {syntax} says RGB", make(colour, "RGB"), syntax, stream, luma(colour))
        header = make(v8, "MONOCHROME2")
        yield streamed(f"grey-header-rgb-stream {syntax}", header, syntax, stream, luma(colour))
        if syntax == "90":
            yield streamed("colour stream says RCT", make(colour, "YBR_RCT"), syntax, stream, luma(colour))
            yield streamed("colour stream says FULL", make(colour, "YBR_FULL"), syntax, stream, luma(colour))
    yield streamed("grey-header-rgb-stream jpeg bare", make(v8), "50", bare(jpeg(colour)), luma(colour))
    yield streamed("grey-header-rgb-stream jpeg rgb", make(v8), "50", jpeg(colour, keep_rgb=True), luma(colour))
    yield streamed("grey-header-rgb-stream inverted", make(v8, "MONOCHROME1"), "50", jpeg(colour), r"\(0028,0004\)")
    for syntax, stream in (
        ("50", jpeg(v8)),
        ("80", imagecodecs.jpegls_encode(v8)),
        ("90", imagecodecs.jpeg2k_encode(v8, level=0)),
    ):
        yield streamed(f"rgb-header-grey-stream {syntax}", make(colour, "RGB"), syntax, stream, t)
        yield streamed(f"ybr-header-grey-stream {syntax}", make(colour, "YBR_FULL"), syntax, stream, t)
    # a syntax of another family than the stream
    for syntax, stream in (
        ("50", imagecodecs.jpeg2k_encode(v8, level=0)),
        ("90", jpeg(v8)),
        ("80", jpeg(v8)),
        ("50", imagecodecs.jpegls_encode(v8)),
    ):
        yield streamed(f"syntax {syntax} is another {stream[:4].hex()}", make(v8), syntax, stream, t)
    yield streamed("syntax rle is jpeg", make(v8), str(RLELossless), jpeg(v8), t)


def fragments() -> Iterator[Case]:
    """Fragments, delimiters, tables of offsets, several frames."""
    t, v8, v16 = truth(), stored(8), stored(16)
    stream = jpeg(v8)
    whole = make(v8)
    whole.file_meta.TransferSyntaxUID = J + "50"
    pieces = [stream[:300], stream[300:700], stream[700:]]
    for name, data in (
        ("several fragments", encapsulate([stream], fragments_per_frame=3, has_bot=False)),
        ("several with a table", encapsulate([stream], fragments_per_frame=3)),
        (
            "cut by hand",
            b"\xfe\xff\0\xe0\0\0\0\0" + b"".join(b"\xfe\xff\0\xe0" + len(p).to_bytes(4, "little") + p for p in pieces),
        ),
        ("padded by nulls", encapsulate([stream + b"\0" * 6], has_bot=False)),
    ):
        dataset = make(v8)
        dataset.file_meta.TransferSyntaxUID = J + "50"
        dataset.PixelData = data
        dataset["PixelData"].is_undefined_length = True
        yield case(f"fragments {name}", dataset, t, 3)
    for name, syntax, frame in (
        ("jpeg", J + "50", stream),
        ("lossless", J + "70", imagecodecs.ljpeg_encode(v16, bitspersample=16)),
        ("j2k", J + "90", imagecodecs.jpeg2k_encode(v16, level=0, reversible=True)),
    ):
        dataset = make(v8 if name == "jpeg" else v16)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
        yield ended(f"no-delimiter {name}", dataset, 8, t)
        yield ended(f"cut-off {name}", dataset, 60, "cut off|damaged")
    for values in (v8, v16, stored(12, signed=True)):
        dataset = make(values)
        dataset.compress(RLELossless)
        yield ended(f"rle no-delimiter {values.dtype}", dataset, 8, t)
        yield ended(f"rle cut-off {values.dtype}", dataset, 60, "cut off|damaged")


def ended(name: str, dataset: Dataset, less: int, shown: Display | str) -> Case:
    """A file without its last bytes."""

    def write(place: Path) -> None:
        save(dataset, place)
        place.write_bytes(place.read_bytes()[:-less])

    return Case(name, write, shown, {}, 3)


def all_cases() -> list[Case]:
    """All of this module."""
    return [each for maker in (streams, fragments) for each in maker()]

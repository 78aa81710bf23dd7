"""DICOM files as containers: preambles, transfer syntaxes, compressed streams, fragments, frames, byte orders."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from support.dicoms import make, save
from support.others.dicom_values import case, raw, windowed
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


def multi(photometric: str = "MONOCHROME2", count: str = "3", **elements: Any) -> Dataset:
    """Three frames: turned, `truth`, mirrored."""
    v = stored(12)
    frames = np.stack([v.T, v, v[:, ::-1]])
    dataset = make(v, photometric, 12, **elements)
    dataset.PixelData = frames.astype("<u2").tobytes()
    raw(dataset, "NumberOfFrames", "IS", count.encode() + b" " * (len(count) % 2))
    return dataset


def group(**elements: Any) -> Dataset:
    """A functional group of the macros' items."""
    found = Dataset()
    for sequence, said in elements.items():
        item = Dataset()
        for keyword, value in said.items():
            setattr(item, keyword, value)
        setattr(found, sequence, Sequence([item]))
    return found


def frames() -> Iterator[Case]:
    """Multi-frame images and functional groups."""
    t, v = truth(), stored(12)
    yield case("multi first", multi(), t.T, frames="first")
    yield case("multi none", multi(), r"\(0028,0008\)")
    yield case("multi blank count", multi(count=" 3"), t.T, frames="first")
    yield case("multi inverted all", multi("MONOCHROME1"), 1 - t.T, frames="all")
    yield case("multi too few", multi(count="9"), r"\(", frames="all")
    for said in ("0", "", "1 "):
        dataset = make(v, bits=12)
        raw(dataset, "NumberOfFrames", "IS", said.encode())
        yield case(f"one frame says {said!r}", dataset, t)
    voi = {"WindowCenter": 1000, "WindowWidth": 800}
    dataset = make(v, bits=12, NumberOfFrames=1, WindowCenter=60000, WindowWidth=10)
    dataset.PerFrameFunctionalGroupsSequence = Sequence([group(FrameVOILUTSequence=voi)])
    yield case("enhanced-window per frame", dataset, windowed(v, 1000, 800))
    dataset = make(v, "MONOCHROME1", bits=12, NumberOfFrames=1)
    dataset.SharedFunctionalGroupsSequence = Sequence([group(FrameVOILUTSequence=voi)])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([Dataset()])
    yield case("enhanced-window shared inverted", dataset, 1 - windowed(v, 1000, 800))
    dataset = make(v, bits=12, NumberOfFrames=1)
    shared = group(
        FrameVOILUTSequence={"WindowCenter": 500, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
        PixelValueTransformationSequence={"RescaleSlope": "0.5", "RescaleIntercept": "-10"},
    )
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    yield case("enhanced-window with rescale", dataset, np.clip((v * 0.5 - 10 - 300) / 400, 0, 1))
    dataset = make(v, bits=12, NumberOfFrames=1)
    shared = group(FrameVOILUTSequence={"WindowCenter": [1000, 5], "WindowWidth": [0, 2]})
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    yield case("enhanced-window several", dataset, windowed(v, 5, 2))
    dataset = multi(**{})
    dataset.PerFrameFunctionalGroupsSequence = Sequence([group(FrameVOILUTSequence=voi), Dataset(), Dataset()])
    yield case("enhanced-window first of three", dataset, windowed(v, 1000, 800).T, frames="first")


def headers() -> Iterator[Case]:
    """No preamble, no meta header, no transfer syntax, or one that lies."""
    t = truth()
    for width, signed in ((8, False), (12, False), (16, True)):
        values = stored(width, signed=signed)
        for name, implicit, little in (("implicit", True, True), ("explicit", False, True), ("big", False, False)):
            for bits_before in (0, 128):
                yield headless(f"no-meta {name} {width} {bits_before}", values, width, implicit, little, bits_before, t)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
        yield without_syntax(f"no-transfer-syntax {syntax.name}", syntax, t)
        yield without_syntax(f"syntax blank {syntax.name}", syntax, t, b"  ")
        yield without_syntax(f"syntax unknown {syntax.name}", syntax, t, b"1.2.3.4\0")
    for truly, says in (
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ExplicitVRBigEndian, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, ExplicitVRBigEndian),
    ):
        yield without_syntax(
            f"syntax says {says.name} is {truly.name}", truly, t, str(says).encode() + b"\0" * (len(says) % 2)
        )
    for end in (b"50", b"70", b"90", b"80"):
        yield without_syntax(f"syntax {end.decode()} is plain", ExplicitVRLittleEndian, t, J.encode() + end)
    yield without_syntax("syntax rle is plain", ExplicitVRLittleEndian, t, b"1.2.840.10008.1.2.5\0")
    yield without_syntax("syntax with blank", ExplicitVRLittleEndian, t, b"1.2.840.10008.1.2.1 ")


def body(values: np.ndarray, width: int, implicit: bool, little: bool) -> bytes:
    """A data set's bytes without anything before it."""
    dataset = make(values, bits=width)
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4.5"
    dataset.Modality, dataset.PatientID = "DX", "p1"
    del dataset.file_meta
    if not little:
        dataset.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
    out = io.BytesIO()
    dcmwrite(out, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    return out.getvalue()


def headless(
    name: str, values: np.ndarray, width: int, implicit: bool, little: bool, nulls: int, shown: Display
) -> Case:
    def write(place: Path) -> None:
        # some systems write the preamble and forget the four letters
        place.write_bytes(b"\0" * nulls + body(values, width, implicit, little))

    return Case(name, write, shown, {})


def without_syntax(name: str, syntax: str, shown: Display, said: bytes | None = None) -> Case:
    """A meta header whose transfer syntax is missing, or is `said`."""

    def write(place: Path) -> None:
        data = body(stored(12), 12, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
        meta = b"\x02\x00\x02\x00UI\x1c\x00" + b"1.2.840.10008.5.1.4.1.1.1.1\0"
        if said is not None:
            meta += b"\x02\x00\x10\x00UI" + len(said).to_bytes(2, "little") + said
        place.write_bytes(
            b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little") + meta + data
        )

    return Case(name, write, shown, {})


def all_cases() -> list[Case]:
    """All of this module."""
    return [each for maker in (streams, fragments, frames, headers) for each in maker()]

"""DICOM files of several frames, with functional groups, without preamble or transfer syntax, or with one that lies."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from support.dicoms import make
from support.others.dicom_made import case, raw, windowed
from support.others.picture import Case, Display, stored, truth

J = "1.2.840.10008.1.2.4."


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
    return [each for maker in (frames, headers) for each in maker()]

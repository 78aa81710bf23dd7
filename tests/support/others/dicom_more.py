"""More DICOM files of the kinds that failed in the field: other elements, numbers, encodings and vendors' habits."""
# ruff: noqa: E501 - a row a case

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from sfumato_common.imaging import fit_square
from support.dicoms import lut_item, make
from support.others.dicom_lies import grouped
from support.others.dicom_made import case, ramp, raw, texts, windowed
from support.others.dicom_streams import luma, tinted
from support.others.picture import SIDE, Case, stored, truth


def swapped_tables() -> Iterator[Case]:
    """Lookup tables whose bytes are in the other order, and some whose steps only look so."""
    t, v, up = truth(), stored(12), np.arange(4096)

    def table(entries: np.ndarray, bits: int, vr: str = "OW") -> Dataset:
        item = lut_item(0, entries, bits)
        if vr == "OW":
            raw(item, "LUTData", "OW", entries.astype(">u2").tobytes())
        else:
            item.LUTData = entries.astype("<u2").byteswap().astype("<u2").tolist()
        return item

    for name, entries, bits in (("12", up, 12), ("16 of 12", up, 16), ("14", up * 4 + 3, 14), ("8", up >> 4, 8)):
        for vr in ("OW", "US"):
            dataset = make(v, bits=12)
            dataset.VOILUTSequence = Sequence([table(entries, bits, vr)])
            yield case(f"swapped voi {name} {vr}", dataset, t)
    dataset = make(v, "MONOCHROME1", 12)
    dataset.ModalityLUTSequence = Sequence([table(up, 12)])
    yield case("swapped modality", dataset, 1 - t)
    dataset = make(v, bits=12)
    dataset.VOILUTSequence = Sequence([table(up[::-1], 12)])
    yield case("swapped voi falling", dataset, 1 - t)
    curve = np.rint(4095 / (1 + np.exp(-(up - 1500) / 300))).astype(int)
    dataset = make(v, bits=12)
    dataset.VOILUTSequence = Sequence([table(curve, 12)])
    yield case("swapped voi sigmoid", dataset, curve[v] / 4095)
    dataset = make(v, bits=12)
    dataset.VOILUTSequence = Sequence([lut_item(0, (up // 16) * 256, 16)])
    yield case("not swapped of high bytes", dataset, t)
    palette = make(stored(8), "PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(palette, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        raw(palette, f"{name}PaletteColorLookupTableData", "OW", (np.arange(256) * 16).astype(">u2").tobytes())
    yield case("swapped palette", palette, t)


def planes() -> Iterator[Case]:
    """Colours that lie plane by plane, or pixel by pixel, against their Planar Configuration."""
    t = truth()
    deep = np.dstack([stored(16)] * 3)
    noisy = np.clip(np.dstack([stored(8)] * 3) + np.random.default_rng(0).normal(0, 6, (SIDE, SIDE, 1)), 0, 255)
    for name, values, shown in (
        ("grey", np.dstack([stored(8)] * 3), t),
        ("tinted", tinted(), luma(tinted())),
        ("deep", deep, t),
        ("noisy", noisy.astype(np.uint8), noisy[..., 0].astype(np.uint8) / 255),
    ):
        by_plane = np.ascontiguousarray(np.moveaxis(values, -1, 0))
        for said in (0, 1):
            for lies in (0, 1):
                dataset = make(values, "RGB", PlanarConfiguration=said)
                dataset.PixelData = (
                    (by_plane if said != lies else values).astype(values.dtype.newbyteorder("<")).tobytes()
                )
                yield case(f"planes {name} says {said}{' and lies' if lies else ''}", dataset, shown, 2.5)
    ybr = np.asarray(Image.fromarray(np.dstack([stored(8)] * 3)).convert("YCbCr"))
    dataset = make(ybr, "YBR_FULL", PlanarConfiguration=0)
    dataset.PixelData = np.ascontiguousarray(np.moveaxis(ybr, -1, 0)).tobytes()
    yield case("planes ybr lies", dataset, t, 2.5)
    for said in (2, 256):
        dataset = make(np.dstack([stored(8)] * 3), "RGB")
        raw(dataset, "PlanarConfiguration", "US", said.to_bytes(2, "little"))
        yield case(f"planes {said}", dataset, t, 2.5)


def windows() -> Iterator[Case]:
    """Windows and rescales as vendors and middleware write them."""
    v = stored(12)
    for name, said, shown in (
        ("comma exponent", {"WindowCenter": "1,0E3", "WindowWidth": "8,00e2"}, windowed(v, 1000, 800)),
        ("plus signs", {"WindowCenter": "+1000", "WindowWidth": "+800"}, windowed(v, 1000, 800)),
        ("zeros before", {"WindowCenter": "001000", "WindowWidth": "000800"}, windowed(v, 1000, 800)),
        ("nulls behind", {"WindowCenter": "1000\0", "WindowWidth": "800\0"}, windowed(v, 1000, 800)),
        ("three and two", {"WindowCenter": "1000\\40\\2000", "WindowWidth": "800\\400"}, windowed(v, 1000, 800)),
        ("first empty", {"WindowCenter": "\\1000", "WindowWidth": "\\800"}, windowed(v, 1000, 800)),
        ("not a number", {"WindowCenter": "NaN", "WindowWidth": "NaN"}, ramp(v, v.min(), v.max())),
        ("infinite", {"WindowCenter": "1000", "WindowWidth": "inf"}, ramp(v, v.min(), v.max())),
        ("a unit", {"WindowCenter": "1000 HU", "WindowWidth": "800 HU"}, r"\(0028,105[01]\)"),
        ("in quotes", {"WindowCenter": '"1000"', "WindowWidth": '"800"'}, windowed(v, 1000, 800)),
        ("a width alone", {"WindowWidth": "800"}, ramp(v, v.min(), v.max())),
        ("a slope below zero", {"RescaleSlope": "-1", "RescaleIntercept": "4095"}, ramp(4095.0 - v, 4095 - v.max(), 4095 - v.min())),
        ("commas", {"RescaleSlope": "1,0", "RescaleIntercept": "-1024,0", "WindowCenter": "0,0", "WindowWidth": "800,0"}, windowed(v - 1024.0, 0, 800)),
        ("an intercept alone", {"RescaleIntercept": "-1000", "WindowCenter": "0", "WindowWidth": "800"}, windowed(v - 1000.0, 0, 800)),
        ("a slope of words", {"RescaleSlope": "one", "RescaleIntercept": "0"}, r"\(0028,1053\)"),
        ("an intercept of nan", {"RescaleSlope": "1", "RescaleIntercept": "nan"}, r"\(0028,1052\)"),
        ("a slope of nothing", {"RescaleSlope": "0.000", "RescaleIntercept": "5"}, r"\(0028,1053\)"),
        ("two slopes", {"RescaleSlope": "1\\1", "RescaleIntercept": "-1000\\-1000", "WindowCenter": "0", "WindowWidth": "800"}, windowed(v - 1000.0, 0, 800)),
    ):  # fmt: skip
        yield case(f"more window {name}", texts(v, bits=12, **said), shown)
    for function in ("LINEAR EXACT", "linear_exact", "Linear-Exact"):
        dataset = make(v, bits=12, WindowCenter=1000, WindowWidth=800, VOILUTFunction=function)
        yield case(f"more function {function}", dataset, ramp(v, 600, 1400))
    for function in ("LOG", "TANH", "SIGMOIDAL"):
        dataset = make(v, bits=12, WindowCenter=1000, WindowWidth=800, VOILUTFunction=function)
        yield case(f"more function {function}", dataset, r"\(0028,1056\)")
    dataset = make(v, bits=12, WindowCenter=1000, WindowWidth=800, VOILUTFunction="SIGMOID\0")
    yield case("more function null behind", dataset, 1 / (1 + np.exp(-4 * (v - 1000.0) / 800)))


def pixels() -> Iterator[Case]:
    """Depths, lengths, representations and names of colours that a header gets wrong in yet other ways."""
    v, eight = stored(12), stored(8)
    dataset = make(v.astype(np.uint32), bits=12)
    yield case("more 32 bits of 12", dataset, ramp(v, v.min(), v.max()))
    dataset = make(v, bits=12)
    dataset.BitsAllocated = 12
    yield case("more 12 bits packed", dataset, r"\(0028,0100\)")
    dataset = make(v, bits=12)
    dataset.HighBit = 7
    yield case("more high bit below", dataset, ramp(v, v.min(), v.max()))
    dataset = make(v, bits=12)
    dataset.PixelData += b"\0" * 64
    yield case("more bytes than pixels", dataset, ramp(v, v.min(), v.max()))
    for name, cut in (("a row", 2 * SIDE), ("a pixel", 2)):
        dataset = make(v, bits=12)
        dataset.PixelData = dataset.PixelData[:-cut]
        yield case(f"more without {name}", dataset, r"\(7FE0,0010\)|cut off")
    for written in ("MONOCHROME 2", "Monochrome2 ", "MONOCHROME2\0", "monochrome_2"):
        dataset = make(v, "MONOCHROME2", 12)
        raw(dataset, "PhotometricInterpretation", "CS", written.encode() + b" " * (len(written) % 2))
        yield case(f"more named {written!r}", dataset, ramp(v, v.min(), v.max()))
    for written in ("GRAYSCALE", "MONOCHROME", "MONOCHROME3", "HSV", "ARGB"):
        yield case(f"more named {written}", make(v, written, 12), r"\(0028,0004\)")
    for frames in ("0", "", "1.0", " 1"):
        dataset = make(v, bits=12)
        raw(dataset, "NumberOfFrames", "IS", frames.encode() + b" " * (len(frames) % 2))
        yield case(f"more frames {frames!r}", dataset, ramp(v, v.min(), v.max()))
    for written in ("ISO_IR 999", "\\ISO 2022 IR 87", "latin1", "UTF-8"):
        dataset = make(v, bits=12, PatientName="Doe^Jane")
        dataset.SpecificCharacterSet = written
        yield case(f"more letters {written}", dataset, ramp(v, v.min(), v.max()))
    signed = stored(12, signed=True)
    dataset = make(signed, bits=12)
    dataset.PixelRepresentation = 1
    yield case("more signed", dataset, ramp(signed, signed.min(), signed.max()))
    big = make(v, bits=12)
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big.PixelData = v.astype(">u2").tobytes()
    yield case("more big-endian", big, ramp(v, v.min(), v.max()))
    little = make(v, bits=12)
    little.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    yield case("more big-endian that is little", little, ramp(v, v.min(), v.max()))
    dataset = make(v, bits=12)
    dataset.PixelData = v.astype(">u2").tobytes()
    yield case("more little-endian that is big", dataset, ramp(v, v.min(), v.max()))
    dataset = make(eight)
    dataset["PixelData"].VR = "OW"
    yield case("more bytes as words", dataset, ramp(eight, eight.min(), eight.max()))


def shapes() -> Iterator[Case]:
    """Pixels that are not square, by elements in other places and forms."""
    squeezed = np.rint(truth()[::2] * 255).astype(np.uint8)
    tall = fit_square((squeezed / 255).astype(np.float32), SIDE, (2.0, 1.0))
    plain = fit_square((squeezed / 255).astype(np.float32), SIDE, (1.0, 1.0))
    for name, said, shown in (
        ("ratio 2 1", {"PixelAspectRatio": "2\\1"}, tall),
        ("ratio 20 10", {"PixelAspectRatio": "20\\10"}, tall),
    ):
        dataset = make(squeezed)
        raw(
            dataset,
            "PixelAspectRatio",
            "IS",
            said["PixelAspectRatio"].encode() + b" " * (len(said["PixelAspectRatio"]) % 2),
        )
        yield case(f"more shape {name}", dataset, shown)
    for name, spacing, shown in (
        ("commas", b"0,4\\0,2 ", tall),
        ("zero", b"0\\0 ", plain),
        ("one value", b"0.4 ", plain),
        ("empty", b"", plain),
        ("slash", b"0.4/0.2 ", r"\(0018,1164\)|\(0028,0030\)"),
    ):
        dataset = make(squeezed)
        raw(dataset, "ImagerPixelSpacing", "DS", spacing)
        yield case(f"more shape spacing {name}", dataset, shown)
    dataset = grouped(make(squeezed), {"PixelMeasuresSequence": {"PixelSpacing": [0.4, 0.2]}})
    yield case("more shape in a group", dataset, tall)


def streams() -> Iterator[Case]:
    """Compressed streams beside headers of another depth, sign or colour."""
    v, eight = stored(12), stored(8)
    shown = ramp(v, v.min(), v.max())

    def packed(stream: bytes, syntax: Any, values: np.ndarray, bits: int | None = None, **more: Any) -> Dataset:
        dataset = make(values, bits=bits, **more)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        return dataset

    lossless = imagecodecs.ljpeg_encode(v, bitspersample=12)
    yield case("more stream lossless 12", packed(lossless, JPEGLosslessSV1, v, 12), shown)
    yield case("more stream lossless says 16", packed(lossless, JPEGLosslessSV1, v, 16), shown)
    says8 = packed(lossless, JPEGLosslessSV1, v, 12)
    says8.BitsAllocated, says8.BitsStored, says8.HighBit = 8, 8, 7
    yield case("more stream lossless says 8", says8, shown)
    j2k = imagecodecs.jpeg2k_encode(v, level=0, reversible=True)
    yield case("more stream 2000 says 16", packed(j2k, JPEG2000Lossless, v, 16), shown)
    says_signed = packed(j2k, JPEG2000Lossless, v, 12)
    says_signed.PixelRepresentation = 1
    yield case("more stream 2000 says signed", says_signed, shown)
    cut = packed(j2k[: len(j2k) // 3], JPEG2000Lossless, v, 12)
    yield case("more stream 2000 cut off", cut, r"\(7FE0,0010\)|cut off|damaged")
    cut = packed(lossless[: len(lossless) // 3], JPEGLosslessSV1, v, 12)
    yield case("more stream lossless cut off", cut, r"\(7FE0,0010\)|cut off|damaged")
    rle = make(np.dstack([eight] * 3), "RGB")
    rle.compress(RLELossless)
    rle.PlanarConfiguration = 0
    yield case("more stream rle says interleaved", rle, ramp(eight, 0, 255), 2.5)
    none = packed(b"\0\0", JPEG2000Lossless, v, 12)
    yield case("more stream of nothing", none, r"\(7FE0,0010\)|cut off|empty")
    own = grouped(make(v, bits=12), {}, {"FrameVOILUTSequence": {"WindowCenter": 1000, "WindowWidth": 800}})
    yield case("more group of the frame alone", own, windowed(v, 1000, 800))
    unknown = packed(j2k, "1.2.840.10008.1.2.4.100", v, 12)
    yield case("more stream of a film", unknown, shown)
    unended = packed(lossless[:-2], JPEGLosslessSV1, v, 12)
    yield case("more stream lossless without its end mark", unended, shown)
    folded = packed(imagecodecs.jpegls_encode(v), JPEGLSLossless, v, 12)
    folded.PixelRepresentation = 1
    yield case("more stream ls says signed", folded, shown)
    below = stored(12, signed=True)
    meant = packed(
        imagecodecs.jpeg2k_encode((below & 0xFFF).astype(np.uint16), level=0, reversible=True),
        JPEG2000Lossless,
        below,
        12,
    )
    yield case("more stream 2000 of signed words", meant, ramp(below, below.min(), below.max()))


def all_cases() -> list[Case]:
    """All of this module."""
    makers = (swapped_tables, planes, windows, pixels, shapes, streams)
    return [each for maker in makers for each in maker()]

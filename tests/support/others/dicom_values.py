"""DICOM files whose header says values, windows, curves and bits otherwise than it should; uncompressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from support.dicoms import lut_item, make, save
from support.others.picture import Case, Display, stored, truth


def raw(dataset: Dataset, keyword: str, vr: str, value: bytes) -> None:
    """An element as a file has it, whatever pydicom thinks of its value."""
    from pydicom.datadict import tag_for_keyword

    tag = Tag(tag_for_keyword(keyword))
    dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def case(name: str, dataset: Dataset, expected: Display | str, tolerance: float = 1.5, **terms: Any) -> Case:
    """A case of one DICOM file; `terms` are of its source."""

    def write(place: Path) -> None:
        save(dataset, place)

    return Case(name, write, expected, terms, tolerance)


def texts(values: np.ndarray, photometric: str = "MONOCHROME2", bits: int | None = None, **said: str) -> Dataset:
    """An image with text numbers as they are written, DS by DS."""
    dataset = make(values, photometric, bits)
    for keyword, value in said.items():
        data = value.encode()
        raw(dataset, keyword, "DS", data + b" " * (len(data) % 2))
    return dataset


def ramp(values: np.ndarray, low: float, high: float) -> Display:
    """What lies between black and white."""
    return np.clip((np.asarray(values, float) - low) / (high - low), 0, 1)


def windowed(values: np.ndarray, centre: float, width: float) -> Display:
    """PS3.3 C.11.2.1.2.1."""
    return ramp(values.astype(float), centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def windows() -> Iterator[Case]:
    """Windows: none that shows anything, commas, blanks, several, functions."""
    t, v12, v10, s12 = truth(), stored(12), stored(10), stored(12, signed=True)
    w = lambda c, d: {"WindowCenter": c, "WindowWidth": d}  # noqa: E731
    yield case("window-zero signed", texts(s12, bits=12, **w("0", "0")), t)
    yield case("window-zero inverted", texts(v12, "MONOCHROME1", 12, **w("40", "0.0")), 1 - t)
    yield case("window-zero of two", texts(v12, bits=12, **w("1\\1000", "0\\800")), windowed(v12, 1000, 800))
    yield case("window-zero 8 bits", texts(stored(8), **w("128", "-0")), t)
    yield case("window-zero as sigmoid", texts(v12, bits=12, VOILUTFunction="SIGMOID", **w("5", "0")), t)
    small = texts(v12, bits=12, RescaleSlope="1E-4", RescaleIntercept="0", **w("0.2", "0.3"))
    yield case("window-below-one tiny slope", small, ramp(v12 * 1e-4, 0.05, 0.35))
    small = texts(v12, bits=12, RescaleSlope="0.0001", RescaleIntercept="-.1", **w("0.1", ".25"))
    yield case("window-below-one intercept", small, ramp(v12 * 1e-4 - 0.1, -0.025, 0.225))
    small = texts(v12, "MONOCHROME1", 12, RescaleSlope="1e-05", RescaleIntercept="0", **w("0.02", "0.03"))
    yield case("window-below-one inverted", small, 1 - ramp(v12 * 1e-5, 0.005, 0.035))
    for name, c, d, centre, width in (
        ("both", "1000,5", "800,0", 1000.5, 800),
        ("point and comma", "1.000,5", "2.048,0", 1000.5, 2048),
        ("comma and point", "1,000.5", "2,048.0", 1000.5, 2048),
        ("signs and blanks", " +1000 ", "8e2", 1000, 800),
        ("blank inside", "1 000", "1 800,5", 1000, 1800.5),
        ("several", "1000,5\\300", "800,5\\100", 1000.5, 800.5),
        ("quotes", '"1000"', '"800"', 1000, 800),
    ):
        yield case(f"window-comma {name}", texts(v12, bits=12, **w(c, d)), windowed(v12, centre, width))
    for name, c, d in (
        ("a unit", "1000 HU", "800 HU"),
        ("thousands or not", "1,000", "2,000"),
        ("comma for bar", "1000,5,2", "8"),
    ):
        yield case(f"window-comma {name}", texts(v12, bits=12, **w(c, d)), r"\(0028,105[01]\)")
    yield case("window-comma words", texts(v12, bits=12, **w("AUTO", "AUTO")), r"\(0028,105[01]\)")
    yield case("window nan", texts(v12, bits=12, **w("nan", "nan")), t)
    yield case("window inf", texts(v12, bits=12, **w("inf", "1000")), t)
    yield case("window-multi-empty first", texts(v12, bits=12, **w("\\1000", "\\800")), windowed(v12, 1000, 800))
    yield case("window-multi-empty last", texts(v12, bits=12, **w("1000\\", "800\\")), windowed(v12, 1000, 800))
    yield case("window-multi-empty only", texts(v12, bits=12, **w("\\", "\\")), t)
    yield case("window-multi-empty blank", texts(v12, bits=12, **w("  ", " ")), t)
    yield case("window-multi-empty fewer", texts(v12, bits=12, **w("1000\\2000", "800")), windowed(v12, 1000, 800))
    yield case("window-multi-empty no centre", texts(v12, bits=12, WindowWidth="800"), t)
    yield case("window-misses-data signed", texts(s12, bits=12, **w("9000", "100")), t)
    yield case("window-misses-data inverted", texts(v10, "MONOCHROME1", 10, **w("-3000", "10")), 1 - t)
    missed = texts(v12, bits=12, **w("60000\\1000", "10\\800"))
    yield case("window-misses-data first", missed, windowed(v12, 1000, 800))
    missed = texts(v12, bits=12, RescaleSlope="1", RescaleIntercept="-30000", **w("2000", "800"))
    yield case("window-misses-data after rescale", missed, t)
    for name, said in (
        ("lower", "linear_exact"),
        ("blanks", " LINEAR_EXACT "),
        ("space", "LINEAR EXACT"),
        ("mixed", "Linear-Exact"),
    ):
        dataset = texts(v12, bits=12, **w("1000", "800"))
        raw(dataset, "VOILUTFunction", "CS", said.encode())
        yield case(f"voi-function {name}", dataset, ramp(v12, 600, 1400))
    for name, said in (("lower", "sigmoid"), ("twice", "Sigmoid\\sigmoid"), ("null", "SIGMOID\0")):
        dataset = texts(v12, bits=12, **w("2000", "1500"))
        raw(dataset, "VOILUTFunction", "CS", said.encode())
        yield case(f"voi-function sigmoid {name}", dataset, 1 / (1 + np.exp(-4 * (v12 - 2000.0) / 1500)))
    dataset = texts(v12, bits=12, **w("1000", "800"))
    raw(dataset, "VOILUTFunction", "CS", b"")
    yield case("voi-function empty", dataset, windowed(v12, 1000, 800))
    raw(unknown := texts(v12, bits=12, **w("1000", "800")), "VOILUTFunction", "CS", b"LOGARITHMIC ")
    yield case("voi-function unknown", unknown, r"\(0028,1056\)")
    yield case("window-negative inverted", texts(v12, "MONOCHROME1", 12, **w("1000", "-400")), 1 - t)
    yield case("window-negative first", texts(v12, bits=12, **w("1000\\2000", "-1\\1500")), windowed(v12, 2000, 1500))
    yield case("window-negative big", texts(s12, bits=12, **w("0", "-65536")), t)


def hot_pixels() -> Iterator[Case]:
    """No window, and a few pixels far beyond the anatomy."""
    t = truth()
    v = np.rint(t * 1000).astype(np.uint16)
    for name, mark, photometric, places in (
        ("lead marker", 65535, "MONOCHROME2", [(0, 0), (31, 31)]),
        ("inverted", 65535, "MONOCHROME1", [(0, 31)]),
        ("one row", 32768, "MONOCHROME2", [(31, 0)]),
    ):
        values = v.copy()
        for place in places:
            values[place] = mark
        big = np.kron(values, np.ones((32, 32), np.uint16))
        big[:, :] = np.kron(v, np.ones((32, 32), np.uint16))
        for place in places:
            big[place[0] * 32, place[1] * 32] = mark
        yield case(f"no-window-hot-pixel {name}", make(big, photometric), t if photometric[-1] == "2" else 1 - t, 3)
    cold = np.kron(v.astype(np.int16), np.ones((32, 32), np.int16))
    cold[5, 5] = -32768
    yield case("no-window-hot-pixel cold", make(cold), t, 3)


def rescales() -> Iterator[Case]:
    """Rescale Slope and Intercept, empty or odd."""
    t, v, s = truth(), stored(12), stored(12, signed=True)
    w = {"WindowCenter": "1000", "WindowWidth": "800"}
    for name, said, slope, intercept in (
        ("slope blank", {"RescaleSlope": "  ", "RescaleIntercept": "0"}, 1, 0),
        ("intercept only", {"RescaleIntercept": "-24"}, 1, -24),
        ("slope only", {"RescaleSlope": "2"}, 2, 0),
        ("both empty", {"RescaleSlope": "", "RescaleIntercept": ""}, 1, 0),
        ("intercept empty", {"RescaleSlope": "0.5", "RescaleIntercept": ""}, 0.5, 0),
        ("commas", {"RescaleSlope": "0,5", "RescaleIntercept": "10,25"}, 0.5, 10.25),
        ("two values", {"RescaleSlope": "0.5\\", "RescaleIntercept": "10\\"}, 0.5, 10),
        ("nulls", {"RescaleSlope": "\0\0", "RescaleIntercept": "\0\0"}, 1, 0),
    ):
        yield case(
            f"rescale-empty {name}", texts(v, bits=12, **said, **w), windowed(v * float(slope) + intercept, 1000, 800)
        )
    yield case("rescale negative", texts(s, bits=12, RescaleSlope="-1", RescaleIntercept="0"), 1 - t)
    yield case("rescale zero", texts(v, bits=12, RescaleSlope="0", RescaleIntercept="5"), r"\(0028,1053\)")
    yield case("rescale words", texts(v, bits=12, RescaleSlope="one", RescaleIntercept="0"), r"\(0028,1053\)")
    yield case("rescale nan", texts(v, bits=12, RescaleSlope="nan", RescaleIntercept="0"), r"\(0028,1053\)")
    yield case("rescale inf", texts(v, bits=12, RescaleSlope="1", RescaleIntercept="1e400"), r"\(0028,1052\)")


def lookups() -> Iterator[Case]:
    """VOI and Modality LUTs that are empty, lie about their depth, or count from odd values."""
    t, v, s = truth(), stored(12), stored(12, signed=True)
    n = 4096
    up = np.arange(n)

    def voi(
        values: np.ndarray, item: Dataset | None, photometric: str = "MONOCHROME2", bits: int = 12, **more: Any
    ) -> Dataset:
        dataset = make(values, photometric, bits, **more)
        dataset.VOILUTSequence = Sequence([item] if item is not None else [])
        return dataset

    yield case("voilut-empty sequence", voi(v, None, WindowCenter=1000, WindowWidth=800), windowed(v, 1000, 800))
    yield case("voilut-empty item", voi(v, Dataset(), WindowCenter=1000, WindowWidth=800), windowed(v, 1000, 800))
    item = lut_item(0, up, 12)
    del item.LUTData
    yield case("voilut-empty no data", voi(v, item, WindowCenter=1000, WindowWidth=800), windowed(v, 1000, 800))
    item = lut_item(0, up, 12)
    del item.LUTDescriptor
    yield case("voilut-empty no descriptor", voi(v, item, WindowCenter=1000, WindowWidth=800), windowed(v, 1000, 800))
    for name, bits, entries in (
        ("14 holds 10", 14, up >> 2),
        ("16 holds 8", 16, up >> 4),
        ("12 holds 16", 12, up * 16 + 15),
        ("10 holds 12", 10, up),
        ("8 holds 12", 8, up),
        ("16 holds 14", 16, up * 4 + 3),
    ):
        yield case(f"voilut-depth-lies {name}", voi(v, lut_item(0, entries, bits)), t)
    yield case("voilut-depth-lies falling", voi(v, lut_item(0, up[::-1], 16)), 1 - t)
    yield case("voilut-depth-lies inverted", voi(v, lut_item(0, up, 16), "MONOCHROME1"), 1 - t)
    item = lut_item(0, up, 16)
    item["LUTDescriptor"].VR, item.LUTDescriptor = "SS", [n, -2048, 16]
    yield case("voilut-depth-lies signed first", voi(s, item), t)
    item = lut_item(0, up, 16)
    item.LUTDescriptor = [n, 2**16 - 2048, 16]
    yield case("voilut-depth-lies first unsigned", voi(s, item), t)
    item = lut_item(0, up, 16)
    raw(item, "LUTData", "OW", up.astype("<u2").tobytes())
    yield case("voilut-depth-lies as words", voi(v, item), t)
    item = lut_item(0, up >> 4, 8)
    raw(item, "LUTData", "OW", (up >> 4).astype("<u1").tobytes())
    yield case("voilut-depth-lies as bytes", voi(v, item), t)
    yield case("voilut short table", voi(v, lut_item(0, np.arange(2048), 11)), np.clip(v / 2047, 0, 1))
    for bits in (8, 10, 14, 16):
        dataset = make(v, bits=12)
        entries = (up * (2**bits - 1)) // (n - 1)
        dataset.ModalityLUTSequence = Sequence([lut_item(0, entries, bits)])
        yield case(f"modality-lut {bits} bits", dataset, t)
    dataset = make(s, bits=12)
    item = lut_item(0, up, 12)
    item.LUTDescriptor = [n, 2**16 - 2048, 12]
    dataset.ModalityLUTSequence = Sequence([item])
    yield case("modality-lut signed", dataset, t)
    item = lut_item(0, up, 12)
    raw(item, "LUTData", "OW", up.astype("<u2").tobytes())
    dataset = make(v, "MONOCHROME1", 12)
    dataset.ModalityLUTSequence = Sequence([item])
    yield case("modality-lut words inverted", dataset, 1 - t)
    dataset = make(v, bits=12, RescaleSlope=1, RescaleIntercept=0)
    dataset.ModalityLUTSequence = Sequence([])
    yield case("modality-lut empty", dataset, t)


def bits() -> Iterator[Case]:
    """Padding in another representation, missing sizes, bits that lie elsewhere."""
    t = truth()
    for name, width, value, vr in (("12 of 16", 12, 2**16 - 2048, "US"), ("14 of 16", 14, 2**16 - 8192, "US")):
        values = stored(width, signed=True)
        values[:, :2] = -(2 ** (width - 1))
        shown = (values + 2.0 ** (width - 1)) / (2**width - 1)
        dataset = make(values, bits=width)
        raw(dataset, "PixelPaddingValue", vr, int(value).to_bytes(2, "little"))
        inner = values[values > -(2 ** (width - 1))]
        shown = ramp(values, inner.min(), inner.max())
        yield case(f"padding-us-signed {name}", dataset, np.where(values == -(2 ** (width - 1)), 0, shown))
    values = np.clip(stored(16), 0, 60000)
    values[:2] = 65535
    inner = values[values < 65535]
    expected = np.where(values == 65535, 0, ramp(values, inner.min(), inner.max()))
    raw(dataset := make(values), "PixelPaddingValue", "SS", b"\xff\xff")
    yield case("padding-ss-unsigned", dataset, expected)
    raw(dataset := make(values, "MONOCHROME1"), "PixelPaddingValue", "SS", b"\xff\xff")
    yield case("padding-ss-unsigned inverted", dataset, np.where(values == 65535, 0, 1 - expected))
    raw(dataset := make(values), "PixelPaddingValue", "US", b"")
    yield case("padding empty", dataset, values / 65535)
    dataset = make(stored(12), bits=12, PixelPaddingValue=5000)
    yield case("padding nowhere", dataset, t)
    values = np.clip(stored(12), 100, 4000)
    values[:3] = 7
    raw(dataset := make(values, bits=12, PixelPaddingValue=0), "PixelPaddingRangeLimit", "US", b"\x0a\0")
    yield case("padding range", dataset, np.where(values == 7, 0, ramp(values, 100, 4000)))
    for keyword in ("PixelRepresentation", "SamplesPerPixel", "BitsStored", "HighBit"):
        for photometric, width in (("MONOCHROME1", 16), ("MONOCHROME2", 8)):
            dataset = make(stored(width), photometric, width)
            delattr(dataset, keyword)
            yield case(f"no-{keyword} {photometric} {width}", dataset, t if photometric[-1] == "2" else 1 - t)
        dataset = make(stored(8), bits=8)
        raw(dataset, keyword, "US", b"")
        yield case(f"no-{keyword} empty", dataset, t)
    dataset = make(stored(12), bits=12, WindowCenter=2048, WindowWidth=4096)
    del dataset.BitsStored, dataset.HighBit
    yield case("no-bits-stored nor high bit", dataset, t)
    dataset = make(stored(16))
    del dataset.BitsAllocated
    yield case("no-bits-allocated 16", dataset, t)
    dataset = make(stored(8))
    del dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit
    yield case("no-bits-allocated 8", dataset, t)
    for width, high, signed in ((10, 15, False), (12, 13, False), (12, 15, True), (14, 15, False), (4, 7, False)):
        up = high + 1 - width
        values = stored(width, signed=signed)
        lifted = (values.astype(np.int64) << up).astype(values.dtype)
        dataset = make(lifted, bits=width)
        dataset.HighBit = high
        yield case(f"high-bit {high} of {width} signed={signed}", dataset, t, 9 if width == 4 else 1.5)
    overlaid = make(stored(12) | np.uint16(0x8000), bits=12)
    yield case("high-bit overlay above", overlaid, t)
    overlaid = make(stored(12) | np.uint16(0x1000), "MONOCHROME1", bits=12)
    yield case("high-bit overlay above inverted", overlaid, 1 - t)
    yield case("bits stored above allocated", make(stored(8), bits=12), r"\(0028,010[01]\)")
    dataset = make(stored(16))
    dataset.BitsStored = 0
    yield case("bits stored zero", dataset, r"\(0028,0101\)")
    dataset = make(stored(8))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    yield case("bits twice the data", dataset, r"\(")
    del (dataset := make(stored(16))).Rows
    yield case("no rows", dataset, r"\(0028,0010\)")


def photometrics() -> Iterator[Case]:
    """Photometric interpretations in other letters, missing, and against their samples."""
    t, v = truth(), stored(8)
    rgb = np.dstack([v] * 3)
    for name, said, values, shown in (
        ("mixed 1", b"Monochrome1 ", v, 1 - t),
        ("blanks", b" MONOCHROME2", v, t),
        ("inner blank", b"MONOCHROME 2", v, t),
        ("null", b"MONOCHROME1\0", v, 1 - t),
        ("lower rgb", b"rgb ", rgb, t),
        ("underscore", b"MONOCHROME_2", v, t),
        ("twice", b"MONOCHROME2\\MONOCHROME2 ", v, t),
    ):
        dataset = make(values)
        raw(dataset, "PhotometricInterpretation", "CS", said)
        yield case(f"pi-lowercase {name}", dataset, shown)
    for name, values in (("one sample 16", stored(16)), ("colour", rgb), ("signed", stored(12, signed=True))):
        dataset = make(values)
        del dataset.PhotometricInterpretation
        yield case(f"pi-missing {name}", dataset, r"\(0028,0004\)")
    raw(dataset := make(v), "PhotometricInterpretation", "CS", b"  ")
    yield case("pi-missing blank", dataset, r"\(0028,0004\)")
    yield case("pi unknown", make(v, "HSV"), r"\(0028,0004\)")
    yield case("mono-three-samples", make(rgb, "MONOCHROME2"), t)
    yield case("mono-three-samples 16", make(np.dstack([stored(16)] * 3), "MONOCHROME2"), t)
    planar = make(rgb, "MONOCHROME2")
    planar.PlanarConfiguration, planar.PixelData = 1, rgb.transpose(2, 0, 1).tobytes()
    yield case("mono-three-samples planar", planar, t)
    yield case("mono-three-samples inverted", make(rgb, "MONOCHROME1"), r"\(0028,0004\)")
    planar = make(rgb, "RGB")
    planar.PlanarConfiguration, planar.PixelData = 1, rgb.transpose(2, 0, 1).tobytes()
    yield case("rgb planar", planar, t)
    for photometric in ("RGB", "YBR_FULL"):
        yield case(f"{photometric} with one sample", make(v, photometric), r"\(0028,000[24]\)")
    yield case("rgb 16 holds 12", make(np.dstack([stored(12)] * 3), "RGB", 12), t)
    yield case("rgb 16 says 16 holds 12", make(np.dstack([stored(12)] * 3), "RGB"), t)


def byte_orders() -> Iterator[Case]:
    """The same in another transfer syntax."""
    t = truth()

    for width, signed in ((16, False), (12, True), (10, False)):
        values = stored(width, signed=signed)
        dataset = make(values, bits=width)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
        yield case(f"big-endian {width} signed={signed}", dataset, t)
    dataset = make(stored(12), bits=12)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    yield case("implicit 12", dataset, t)


def all_cases() -> list[Case]:
    """All of this module."""
    makers = (windows, hot_pixels, rescales, lookups, bits, photometrics, byte_orders)
    return [each for maker in makers for each in maker()]

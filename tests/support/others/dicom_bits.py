"""DICOM files whose bits, padding, colours and byte orders lie otherwise than the header says; uncompressed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from support.dicoms import make
from support.others.dicom_made import case, ramp, raw
from support.others.picture import Case, stored, truth


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
    return [each for maker in (bits, photometrics, byte_orders) for each in maker()]

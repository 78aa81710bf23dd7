"""DICOM files whose windows, curves and rescale say otherwise than they should, or hold a marker; uncompressed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from support.dicoms import make
from support.others.dicom_made import case, ramp, raw, texts, windowed
from support.others.picture import Case, stored, truth


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


def all_cases() -> list[Case]:
    """All of this module."""
    return [each for maker in (windows, hot_pixels, rescales) for each in maker()]

"""DICOM files whose lookup tables are empty, lie about their depth, or count from odd values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from support.dicoms import lut_item, make
from support.others.dicom_made import case, raw, windowed
from support.others.picture import Case, stored, truth


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


def all_cases() -> list[Case]:
    """All of this module."""
    return list(lookups())

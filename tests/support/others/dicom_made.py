"""What cases of DICOM files are made of: elements as files have them, and what windows show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from support.dicoms import make, save
from support.others.picture import Case, Display


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

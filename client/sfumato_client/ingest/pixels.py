"""DICOM samples to display values: Modality LUT, VOI LUT or window, polarity, palette and colour.

The order is PS3.4 N.2: stored values -> Modality LUT (PS3.3 C.11.1) -> VOI LUT (C.11.2) -> presentation. Polarity is
the Photometric Interpretation's alone (C.7.6.3.1.2): MONOCHROME1 shows its smallest value white. Presentation LUT Shape
INVERSE (C.11.6) says the same thing again in DX files and is not applied a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array

from sfumato_client.ingest.records import UnreadableError
from sfumato_common.types import AnyArray

Display = npt.NDArray[np.float32]

_GREY = {"MONOCHROME1", "MONOCHROME2"}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}
_LARGEST = 2**28  # samples: a header may claim any size, a chest radiograph has some 2**24


def display_values(dataset: Dataset) -> Display:
    """Display values 0..1 (1 = white) of a single-frame image: [H, W] grey or [H, W, 3] RGB.

    Raises UnreadableError with a fixed reason; whatever else pydicom or a decoder raises is the caller's to catch.
    """
    photometric = _check_header(dataset)
    stored = pixel_array(dataset)  # signed, unused high bits cleared, YBR converted to RGB
    grey = photometric in _GREY or photometric == "PALETTE COLOR"
    if stored.ndim == 3 and stored.shape[0] == 1 and grey:
        stored = stored[0]
    if stored.ndim != (2 if grey else 3) or 0 in stored.shape:
        raise UnreadableError("the pixel data do not have the shape that the header declares")
    if photometric == "PALETTE COLOR":
        return _full_range(apply_color_lut(stored, dataset)[..., :3])
    if photometric in _COLOUR:
        return _full_range(stored, int(dataset.BitsStored))
    return _grey(stored, dataset, photometric)


def _check_header(dataset: Dataset) -> str:
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableError("no pixel data in the file")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise UnreadableError("multi-frame image; only single radiographs are taken")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if not 0 < rows * columns * int(dataset.get("SamplesPerPixel") or 1) <= _LARGEST:
        raise UnreadableError("rows and columns are missing or too large")
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    if photometric not in _GREY | _COLOUR | {"PALETTE COLOR"}:
        raise UnreadableError("its photometric interpretation is missing or not supported")
    return photometric


def _full_range(samples: AnyArray, bits: int | None = None) -> Display:
    """Unsigned colour samples -> 0..1 by their nominal range (`bits`, else the array type's)."""
    top = 2**bits - 1 if bits else np.iinfo(samples.dtype).max
    return samples.astype(np.float32) / np.float32(top)


def _grey(stored: AnyArray, dataset: Dataset, photometric: str) -> Display:
    padding = _padding(stored, dataset)
    values = apply_modality_lut(stored, dataset)
    if not np.isfinite(values).all():
        raise UnreadableError("the pixel data hold values that are not finite")
    shown = _voi(values, dataset, padding)
    if photometric == "MONOCHROME1":
        shown = 1.0 - shown
    if padding is not None:
        shown[padding] = 0.0  # outside the beam: black in either polarity
    return shown


def _padding(stored: AnyArray, dataset: Dataset) -> npt.NDArray[np.bool_] | None:
    """Pixels outside the image, by Pixel Padding Value and Range Limit (PS3.3 C.7.5.1.1.2); in stored values."""
    first = dataset.get("PixelPaddingValue")
    if first is None or not isinstance(first, int):
        return None
    last = dataset.get("PixelPaddingRangeLimit", first)
    low, high = min(first, last), max(first, last)
    mask: npt.NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return mask if mask.any() and not mask.all() else None


def _voi(values: AnyArray, dataset: Dataset, padding: npt.NDArray[np.bool_] | None) -> Display:
    """VOI LUT, else the first window, else the image's own smallest to largest value outside the padding."""
    if dataset.get("VOILUTSequence"):
        depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        # apply_voi indexes its table with integers: after a rescale the values are floats
        return apply_voi(np.rint(values).astype(np.int32), dataset).astype(np.float32) / np.float32(2**depth - 1)
    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None:
        return window(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    inside = values if padding is None else values[~padding]
    low, high = float(inside.min()), float(inside.max())
    if low == high:
        raise UnreadableError("the image is blank: all pixels are equal")
    return np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)


def _first(value: Any) -> float | None:
    """First of one or several values (PS3.3 C.11.2.1.2: alternatives for the same image), None where empty."""
    if value is None or value == "":
        return None
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return float(values[0]) if values else None


def window(values: AnyArray, centre: float, width: float, function: str) -> Display:
    """Window -> 0..1 (PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT).

    LINEAR: black at or below c - 0.5 - (w - 1)/2, white above c - 0.5 + (w - 1)/2; w >= 1. LINEAR_EXACT: c -+ w/2;
    SIGMOID: 1 / (1 + exp(-4 (x - c) / w)); w > 0. Raises UnreadableError for a width or function the standard forbids.
    """
    if not np.isfinite([centre, width]).all() or width <= 0 or (function == "LINEAR" and width < 1):
        raise UnreadableError("the window width is not one that DICOM allows")
    x = values.astype(np.float32)
    if function == "LINEAR":
        if width == 1:
            return (x > centre - 0.5).astype(np.float32)
        y = (x - np.float32(centre - 0.5)) / np.float32(width - 1) + np.float32(0.5)
    elif function == "LINEAR_EXACT":
        y = (x - np.float32(centre)) / np.float32(width) + np.float32(0.5)
    elif function == "SIGMOID":
        y = 1.0 / (1.0 + np.exp(np.clip(np.float32(-4.0 / width) * (x - np.float32(centre)), -80.0, 80.0)))
    else:
        raise UnreadableError("its VOI LUT function is not one that DICOM defines")
    shown: Display = np.clip(y, 0.0, 1.0).astype(np.float32)
    return shown

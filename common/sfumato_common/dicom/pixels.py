"""DICOM samples to display values: Modality LUT, VOI LUT or window, polarity, palette and colour.

The order is PS3.4 N.2: stored values -> Modality LUT (PS3.3 C.11.1) -> VOI LUT (C.11.2) -> presentation. Polarity is
the Photometric Interpretation's alone (C.7.6.3.1.2): MONOCHROME1 shows its smallest value white. Presentation LUT Shape
INVERSE (C.11.6) says the same thing again in DX files and is not applied a second time. A window that shows nothing is
none, as in a viewer that falls back to the image's own range.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from sfumato_common.dicom.decoders import other_shape, plain_frame
from sfumato_common.dicom.elements import Note, first_item, functional, integer, named, number, numbers, plain, word
from sfumato_common.dicom.lookup import Lookup, read_lookup
from sfumato_common.dicom.mending import COLOUR, GREY, PALETTE, mend, shift_of
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.dicom.words import (
    bytes_as_they_are,
    colours_as_they_are,
    planes_as_they_are,
    stored_values,
    whole_picture,
)
from sfumato_common.imaging import depth_of, varies
from sfumato_common.types import AnyArray

Display = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# of an image without a window: what lies beyond these quantiles is a marker where it makes the range so much wider
_TAIL, _WIDER, _MARKER = 1e-3, 2.0, 0.02
_SAMPLES = 2**16
_GLANCE = 2**12
_HARDLY = 0.1  # of the picture beside which no more than so much of the greys is seen
_CACHED = 2**17  # values of a film that are windowed at once
_CURVES = {plain(name): name for name in ("LINEAR", "LINEAR_EXACT", "SIGMOID")}


def display_values(dataset: Dataset, note: Note = lambda text: None, frame: int = 0) -> Display:
    """Display values 0..1 (1 = white) of one frame of an image: [H, W] grey or [H, W, 3] RGB.

    `dataset` is changed where its header is wrong, and `note` is told of everything that was not as it should be.
    Raises UnreadableError with a fixed reason; whatever else pydicom or a decoder raises is the caller's to catch.
    """
    mend(dataset, note)
    shift = shift_of(dataset, note) if "PixelData" in dataset else 0
    single = plain_frame(dataset, frame, note)
    if single is dataset:
        bytes_as_they_are(dataset, note)
        planes_as_they_are(dataset, note)
        colours_as_they_are(dataset, note)
    photometric = str(single.PhotometricInterpretation)
    stored, words = stored_values(single, frame if single is dataset else 0, shift)
    grey = photometric in GREY or photometric == PALETTE
    if stored.ndim == 3 and stored.shape[0] == 1 and grey:
        stored = stored[0]
    if stored.ndim != (2 if grey else 3) or 0 in stored.shape:
        raise UnreadableError(other_shape())
    if photometric == PALETTE:
        return _palette(stored, dataset, note)
    if photometric in COLOUR:
        bits = int(single.BitsStored)
        if bits > 8 and stored.dtype.kind == "u" and (held := depth_of(stored)) < bits:
            note(f"its {named('BitsStored')} is {bits}, and its colours have {held}: shown by the data")
            bits = held
        colours: Display = np.asarray(stored, np.float32) / np.float32(2**bits - 1)
        return colours
    padding = _padding(stored, words, dataset, note)
    if words is not None:
        stored = whole_picture(dataset, words, stored, padding, note)
    return _grey(stored, padding, dataset, photometric, frame, note)


def _palette(stored: AnyArray, dataset: Dataset, note: Note) -> Display:
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        colours = apply_color_lut(stored, dataset)[..., :3]
        segmented: Display = colours.astype(np.float32) / np.float32(np.iinfo(colours.dtype).max)
        return segmented
    tables = list[Lookup]()
    for name in _PALETTES:
        data, descriptor = f"{name}PaletteColorLookupTableData", f"{name}PaletteColorLookupTableDescriptor"
        table = read_lookup(dataset, stored.dtype.kind == "i", note, data, descriptor)
        if table is None:
            raise UnreadableError(f"its {named(data)} or {named(descriptor)} is missing")
        tables.append(table)
    top = np.float32(max(table.top for table in tables))
    values: Display = np.stack([table.of(stored) for table in tables], axis=-1).astype(np.float32) / top
    return values


_PALETTES = ("Red", "Green", "Blue")


def _grey(
    stored: AnyArray, padding: Mask | None, dataset: Dataset, photometric: str, frame: int, note: Note
) -> Display:
    values = _modality(stored, dataset, frame, note)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnreadableError("the pixel data hold values that are not finite")
    shown = _voi(values, dataset, padding, frame, note)
    if photometric == "MONOCHROME1":
        shown = 1.0 - shown
    if padding is not None:
        shown[padding] = 0.0  # outside the beam: black in either polarity
    return shown


def _padding(stored: AnyArray, words: AnyArray | None, dataset: Dataset, note: Note) -> Mask | None:
    """Pixels outside the image, by Pixel Padding Value and Range Limit (PS3.3 C.7.5.1.1.2); in stored values.

    A value for which stored bits have no room is looked for in the whole `words`.
    """
    bounds = [integer(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if bounds[0] is None:
        return None
    given = [value for value in bounds if value is not None]
    # written in the other representation: unsigned for signed pixels, or the reverse
    width = 2 ** int(dataset.get("BitsAllocated") or 16)
    signed = stored.dtype.kind == "i"
    meant = [value - width if signed and value >= width // 2 else value for value in given]
    meant = [value + width if stored.dtype.kind == "u" and value < 0 else value for value in meant]
    if meant != given:
        note(f"its {named('PixelPaddingValue')} is written as if pixels were {'un' if signed else ''}signed: converted")
    bits = int(dataset.BitsStored) - signed
    whole = stored if words is None or all(-signed * 2**bits <= value < 2**bits for value in meant) else words
    mask: Mask = (whole >= min(meant)) & (whole <= max(meant))
    return mask if mask.any() and not mask.all() else None


def _modality(stored: AnyArray, dataset: Dataset, frame: int, note: Note) -> AnyArray:
    """Modality LUT, else Rescale Slope and Intercept (PS3.3 C.11.1.1), where either is there and says something."""
    if item := first_item(dataset, "ModalityLUTSequence"):
        table = read_lookup(item, stored.dtype.kind == "i", note)
        if table is not None:
            return table.of(stored)
    holder = functional(dataset, "PixelValueTransformationSequence", frame, "RescaleSlope")
    slope, intercept = number(holder, "RescaleSlope"), number(holder, "RescaleIntercept")
    for keyword, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
        if value is not None and not np.isfinite(value):
            raise UnreadableError(f"its {named(keyword)} is no finite number")
    if slope == 0:
        raise UnreadableError(f"its {named('RescaleSlope')} is 0: all values become one")
    if (slope is None) != (intercept is None):
        note(f"one of its {named('RescaleSlope')} and {named('RescaleIntercept')} is empty: taken as 1 and 0")
    if slope in (None, 1.0) and not intercept:
        return stored
    return stored.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)


def _voi(values: AnyArray, dataset: Dataset, padding: Mask | None, frame: int, note: Note) -> Display:
    """VOI LUT, else the first window that shows anything, else the image's own range outside the padding."""
    holder = functional(dataset, "FrameVOILUTSequence", frame, "WindowWidth")
    inside = values if padding is None else values[~padding]
    if item := first_item(holder, "VOILUTSequence"):
        table = read_lookup(item, bool(values.min() < 0), note)
        looked_up = table.of(values) if table is not None else None
        if table is not None and looked_up is not None and (varies(looked_up) or not varies(inside)):
            return looked_up.astype(np.float32) / np.float32(table.top)
        note(f"its {named('VOILUTSequence')} is empty, or shows nothing: passed over")
    said = word(holder, "VOILUTFunction") or "LINEAR"
    function = _CURVES.get(plain(said), said)
    pairs = list(zip(numbers(holder, "WindowCenter"), numbers(holder, "WindowWidth"), strict=False))
    for centre, width in pairs:
        if centre is None or width is None:
            continue
        if not np.isfinite([centre, width]).all() or width <= 0:
            note(f"a {named('WindowWidth')} is not above 0: passed over")
            continue
        shown = window(values, centre, width, function)
        within = shown if padding is None else shown[~padding]
        if varies(within) or not varies(inside):
            _say_if_hardly_shown(within, note)
            return shown
        note(f"its {named('WindowCenter')} and {named('WindowWidth')} lie outside all values: passed over")
    return _own_range(values, inside, note)


def _say_if_hardly_shown(within: Display, note: Note) -> None:
    """A window that was made for other values may leave a picture of next to nothing, and a viewer shows it so."""
    flat = within.reshape(-1)
    low, high = np.quantile(flat[:: max(1, len(flat) // _GLANCE)], [_HARDLY, 1.0 - _HARDLY])
    if high - low < _HARDLY:
        what = f"{named('WindowCenter')} and {named('WindowWidth')}"
        note(f"its {what} leave next to no contrast: were they made for other values?")


def _own_range(values: AnyArray, inside: AnyArray, note: Note) -> Display:
    """Smallest to largest value; without the outermost few, where these alone make the range."""
    low, high = float(inside.min()), float(inside.max())
    if low == high:
        raise UnreadableError("the image is blank: all pixels are equal")
    flat = inside.reshape(-1)
    some = np.sort(flat[:: max(1, len(flat) // _SAMPLES)]).astype(np.float64)
    first, last = _without_markers(some)
    if last > first and high - low > _WIDER * (last - first):
        note("it has no window, and a few pixels lie far beyond all others: shown without them")
        low, high = first, last
    return np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)


def _without_markers(some: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The range of sorted values without the outermost few, and without up to a fiftieth that a wide gap sets apart."""
    first, last = (float(value) for value in np.quantile(some, [_TAIL, 1.0 - _TAIL]))
    count = max(1, int(_MARKER * len(some)))
    gaps = np.diff(some)
    up, down = len(gaps) - count + int(gaps[-count:].argmax()), int(gaps[:count].argmax())
    if gaps[up] > some[up] - some[0]:
        last = min(last, float(some[up]))
    if gaps[down] > some[-1] - some[down + 1]:
        first = max(first, float(some[down + 1]))
    return first, last


def window(values: AnyArray, centre: float, width: float, function: str) -> Display:
    """Window -> 0..1 (PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT).

    LINEAR: black at or below c - 0.5 - (w - 1)/2, white above c - 0.5 + (w - 1)/2; w >= 1, and read as LINEAR_EXACT
    below, which only values of less than one grey level can mean. LINEAR_EXACT: c -+ w/2; SIGMOID: 1 / (1 + exp(-4 (x -
    c) / w)); w > 0. Raises UnreadableError for a width or function the standard forbids.
    """
    if not np.isfinite([centre, width]).all() or width <= 0:
        raise UnreadableError(f"its {named('WindowWidth')} is not one that DICOM allows")
    curve = _curve(centre, width, function)
    shown: Display = np.empty(values.shape, np.float32)
    # some rows at a time, which stay in the processor's cache: a film has millions of values
    for first in range(0, len(values), rows := max(1, _CACHED // max(1, values[:1].size))):
        part = shown[first : first + rows]
        part[...] = values[first : first + rows]
        curve(part)
        np.clip(part, 0.0, 1.0, out=part)
    return shown


def _curve(centre: float, width: float, function: str) -> Callable[[Display], None]:
    """What makes display values of values, in their place. Raises UnreadableError."""
    if function == "LINEAR" and width == 1:
        return lambda part: _step(part, centre - 0.5)
    if function == "LINEAR" and width > 1:
        return lambda part: _line(part, centre - 0.5, width - 1.0)
    if function in ("LINEAR", "LINEAR_EXACT"):
        return lambda part: _line(part, centre, width)
    if function == "SIGMOID":
        return lambda part: _sigmoid(part, centre, width)
    raise UnreadableError(f"its {named('VOILUTFunction')} is not one that DICOM defines")


def _step(values: Display, centre: float) -> None:
    values[...] = values > centre


def _line(values: Display, centre: float, width: float) -> None:
    """(values - centre) / width + 1/2."""
    values -= np.float32(centre)
    values /= np.float32(width)
    values += np.float32(0.5)


def _sigmoid(values: Display, centre: float, width: float) -> None:
    values[...] = 1.0 / (1.0 + np.exp(np.clip(np.float32(-4.0 / width) * (values - np.float32(centre)), -80.0, 80.0)))

"""Which images of a set a person should look at: those whose brightness is not that of their device's others.

A sheet of them, and of some that are as the others, stays in the site. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sfumato_client.dataset.cohort import Pixels
from sfumato_client.dataset.pixel_file import EncryptedPixels
from sfumato_client.ingest import Entry
from sfumato_common.pictures import COLUMNS, mosaic, png
from sfumato_common.types import AnyArray

_FAR = 5.0  # robust standard deviations
_MOST, _GAP = 48, 4
_SOME = 1024
_FEWEST = 8  # images of a device that say what is usual


def unusual(pixels: Pixels, entries: Sequence[Entry]) -> list[int]:
    """Numbers of the images, farthest first, whose mean or used range is far from their device's median."""
    if not len(entries):
        return []
    top = float(np.iinfo(pixels.dtype).max)
    seen, device = np.empty((len(entries), 2), np.float32), np.empty(len(entries), np.uint32)
    devices = dict[str, int]()
    for at, entry in enumerate(entries):
        seen[at] = _brightness(pixels[at], top)
        device[at] = devices.setdefault(entry.facts.device, len(devices))
        if not at % _SOME and isinstance(pixels, EncryptedPixels):
            pixels.forget()
    far = np.zeros(len(entries), np.float32)
    for number in range(len(devices)):
        places = np.flatnonzero(device == number)
        if len(places) >= _FEWEST:
            far[places] = _distance(seen[places])
    order = np.argsort(-far, kind="stable")
    return [int(at) for at in order[: int((far > _FAR).sum())]]


def _brightness(image: AnyArray, top: float) -> tuple[float, float]:
    flat = image.reshape(-1).astype(np.float32) / top
    low, high = np.quantile(flat, [0.02, 0.98])
    return float(flat.mean()), float(high - low)


def _distance(seen: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centre = np.median(seen, axis=0)
    spread = 1.4826 * np.median(np.abs(seen - centre), axis=0) + 0.01
    return np.asarray((np.abs(seen - centre) / spread).max(axis=1))


def sheet_of(pixels: Pixels, first: Sequence[int]) -> tuple[bytes, int]:
    """A PNG of images at their own size, `first` and then others over the set; how many of `first` are on it."""
    some: list[int] = np.linspace(0, max(0, len(pixels) - 1), min(len(pixels), _MOST)).astype(int).tolist()
    shown = list(dict.fromkeys([*first[:_MOST], *some]))[:_MOST]
    # black where nothing could be read: the report says why
    tiles = [pixels[at] for at in shown] or [np.zeros(pixels.shape[1:], pixels.dtype)]
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    return png(mosaic(rows, gap=_GAP, ground=0, least_width=0)), min(len(first), _MOST)

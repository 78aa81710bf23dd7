"""What is said of a frame's pixels beside their values: how long and wide they are, and why they cannot be had."""

from __future__ import annotations

from pydicom.dataset import Dataset

from sfumato_common.dicom.elements import functional, named, numbers
from sfumato_common.dicom.unreadable import UnreadableError

_SPACINGS = ("ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")


def pixel_shape(dataset: Dataset, frame: int) -> tuple[float, float]:
    """Height and width of a pixel: Pixel Spacing, the detector's, or Pixel Aspect Ratio (PS3.3 10.7, C.7.6.3.1.7).

    Raises UnreadableError for pixels that no detector has.
    """
    measures = functional(dataset, "PixelMeasuresSequence", frame, "PixelSpacing")
    for holder, keyword in [(measures, "PixelSpacing"), *((dataset, name) for name in _SPACINGS)]:
        given = [value for value in numbers(holder, keyword) if value is not None and value > 0]
        if len(given) == 2:
            if not 1 / 8 <= given[0] / given[1] <= 8:
                raise UnreadableError(f"its {named(keyword)} makes pixels eight times as long as wide, or more")
            return given[0], given[1]
    return 1.0, 1.0


def undecodable(dataset: Dataset) -> str:
    """The reason of pixel data at which a decoder failed."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    how = f"{named('TransferSyntaxUID')}: {syntax.name}" if syntax is not None else "no transfer syntax"
    return f"its {named('PixelData')} cannot be decoded: damaged, cut off, or in a form that is not read here ({how})"

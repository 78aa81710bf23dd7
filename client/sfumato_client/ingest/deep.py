"""Pictures of more than 8 bits a sample that Pillow cannot hold whole: PNG of several samples, and JPEG."""

from __future__ import annotations

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato_client.ingest.depth import shown
from sfumato_common.dicom.elements import Note
from sfumato_common.dicom.jpeg import JpegFrame
from sfumato_common.dicom.streams import segment
from sfumato_common.types import AnyArray

Display = npt.NDArray[np.float32]

_ORIENTATION = 274
_EXIF = 0xE1
_PNG_BITS, _PNG_COLOUR = 24, 25  # places in a PNG's header


def deep_png(data: bytes, bits: int | None, note: Note) -> AnyArray | None:
    """Display values of a PNG of several samples of 16 bits, or None for any other."""
    if len(data) <= _PNG_COLOUR or data[_PNG_BITS] != 16 or data[_PNG_COLOUR] == 0:
        return None
    samples = np.asarray(imagecodecs.png_decode(data))
    # alpha, the last of two or four, is passed over
    return shown(samples[..., 0] if samples.shape[2] == 2 else samples[..., :3], bits, note)


def deep_jpeg(data: bytes, frame: JpegFrame | None) -> Display | None:
    """Display values of a JPEG of more than 8 bits or without loss, or None for any other."""
    if frame is None or (frame.precision == 8 and not frame.lossless):
        return None
    samples = np.asarray(imagecodecs.jpeg8_decode(data))
    exif = Image.Exif()
    exif.load(segment(data, _EXIF) or b"")
    return turned(samples.astype(np.float32) / np.float32(2**frame.precision - 1), exif.get(_ORIENTATION))


def turned(values: Display, orientation: object) -> Display:
    """`values` [H, W, ...] upright, by the Orientation of TIFF and Exif; any other number is none."""
    turns = {3: 2, 4: 2, 5: -1, 6: -1, 7: 1, 8: 1}
    mirrored = {2, 4, 5, 7}
    upright = np.rot90(values, turns.get(orientation, 0)) if isinstance(orientation, int) else values
    return np.ascontiguousarray(upright[:, ::-1] if orientation in mirrored else upright)

"""What a JPEG stream says of itself (ITU-T T.81 B.2.2, JFIF, Adobe's APP14), where a DICOM header says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg

from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.types import AnyArray

# start of frame: baseline, extended, progressive, lossless
_LOSSLESS = 0xC3
_FRAMES = {0xC0, 0xC1, 0xC2, _LOSSLESS}
_END, _LAST = b"\xff\xd9", 2**10  # what follows the end of a picture is no part of it
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
# of Y Cb Cr that was made from RGB so few pixels lead back out of RGB, by more than what compression does
_OUTSIDE, _BEYOND = 1e-3, 24.0


@dataclass(frozen=True)
class JpegFrame:
    """`precision` bits of `components`; `rgb` True or False where the stream says so, None where nobody can tell."""

    precision: int
    components: int
    rgb: bool | None
    lossless: bool = False


def jpeg_frame(stream: bytes) -> JpegFrame | None:
    """The frame header of a JPEG stream, or None where there is none."""
    if stream[:2] != b"\xff\xd8":
        return None
    place, rgb = 2, None
    while place + 4 <= len(stream):
        if stream[place] != 0xFF:
            return None
        marker = stream[place + 1]
        if marker == 0xFF or marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(stream[place + 2 : place + 4], "big")
        body = stream[place + 4 : place + 2 + length]
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            rgb = False
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            rgb = body[11] == 0
        elif marker in _FRAMES and len(body) >= 6:
            components = body[5]
            names = bytes(body[6 + 3 * k] for k in range(components) if 6 + 3 * k < len(body))
            return JpegFrame(body[0], components, True if names == b"RGB" else rgb, marker == _LOSSLESS)
        place += 2 + length
    return None


def has_end(stream: bytes) -> bool:
    """Whether a stream has its end mark."""
    return _END in stream[-_LAST:]


def require_whole(stream: bytes, frame: JpegFrame | None) -> bytes:
    """The stream, with its end mark. Raise UnreadableError where 8 bits have a fault, which decoders paint over."""
    if frame is None:
        raise UnreadableError("its JPEG stream is damaged: it has no frame header")
    if not has_end(stream):  # whether it stops before its end, the decoder says
        stream += _END
    if frame.precision != 8 or frame.lossless:
        return stream
    try:
        simplejpeg.decode_jpeg(stream, "GRAY" if frame.components != 4 else "CMYK", strict=True)
    except ValueError:
        raise UnreadableError("its JPEG stream is damaged or cut off") from None
    return stream


def looks_like_ybr(samples: AnyArray, outside: float = _OUTSIDE) -> bool:
    """Whether colour samples [H, W, 3] of 8 bits may be Y, Cb and Cr: fewer than a share leads `outside` of RGB.

    Y Cb Cr of a picture always leads back into RGB. RGB read as Y Cb Cr does not: its black would have to be green
    below nothing.
    """
    values = samples.reshape(-1, 3)[:: max(1, samples.shape[0] * samples.shape[1] // 2**16)].astype(np.float32)
    luma, blue, red = values[:, 0], values[:, 1] - 128.0, values[:, 2] - 128.0
    back = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue])
    beyond = (back < -_BEYOND) | (back > 255.0 + _BEYOND)
    return float(beyond.any(axis=0).mean()) < outside

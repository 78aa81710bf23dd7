"""TIFF and BigTIFF (TIFF 6.0) of whole bytes a sample: tags, colours, turn; other widths and inks are Pillow's.

Pillow shows 16-bit pictures whose white is zero as negatives, and does not open every order of bytes.
"""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

from sfumato_client.ingest.deep import Display, turned
from sfumato_client.ingest.depth import shown
from sfumato_common.dicom.elements import Note
from sfumato_common.dicom.unreadable import UnreadableError

Tags = dict[int, tuple[int, ...]]

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262
_ORIENTATION, _PLANES, _FORMAT = 274, 284, 339
_WHITE_IS_ZERO, _UNSIGNED, _UNDEFINED, _APART = 0, 1, 4, 2
_COLOURS = {0: 1, 1: 1, 2: 3}  # samples a pixel by photometric interpretation
_READ = {1, 2, 4, 8, 12, 16, 32}
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of values that matter here
_MOST = 64  # values of a tag that are read


def tiff_tags(data: bytes) -> tuple[Tags, bool]:
    """Whole numbers of the first directory, and whether there is a second. Raises struct.error for a damaged one."""
    order = "<" if data[:2] == b"II" else ">"
    wide = struct.unpack_from(order + "H", data, 2)[0] == 43
    number, offset, entry = ("Q", "Q", 20) if wide else ("H", "I", 12)
    (place,) = struct.unpack_from(order + offset, data, 8 if wide else 4)
    (count,) = struct.unpack_from(order + number, data, place)
    place += struct.calcsize(number)
    tags: Tags = {}
    for at in range(place, place + count * entry, entry):
        tag, kind, many = struct.unpack_from(f"{order}HH{offset}", data, at)
        if kind not in _NUMBERS or not 0 < many <= _MOST:
            continue
        values, here = f"{order}{many}{_NUMBERS[kind]}", at + 4 + struct.calcsize(offset)
        if struct.calcsize(values) > struct.calcsize(offset):
            (here,) = struct.unpack_from(order + offset, data, here)
        tags[tag] = struct.unpack_from(values, data, here)
    return tags, struct.unpack_from(order + offset, data, place + count * entry)[0] != 0


def tiff_picture(data: bytes, largest: int, bits: int | None, note: Note) -> Display | None:
    """Display values of a TIFF of 8 or 16 bits, or None for one that Pillow reads.

    Raises UnreadableError for several pictures, and for samples that have no agreed black and white.
    """
    tags, more = tiff_tags(data)
    if more:
        raise UnreadableError("it has several pictures; only single ones are taken")
    if max(tags[_WIDTH] + tags[_HEIGHT]) > largest:
        raise UnreadableError("it is larger than any radiograph")
    if set(tags.get(_FORMAT, ())) - {_UNSIGNED, _UNDEFINED}:
        raise UnreadableError("it holds signed or floating numbers, which have no agreed black and white")
    widths, (photometric,) = set(tags.get(_BITS, (1,))), tags.get(_PHOTOMETRIC, (1,))
    if not widths <= _READ:
        raise UnreadableError("it holds samples of a number of bits that is not read here; save it with 8 or 16")
    if widths not in ({8}, {16}) or photometric not in _COLOURS:
        return None
    samples = np.asarray(imagecodecs.tiff_decode(data))
    if tags.get(_PLANES) == (_APART,) and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    samples = samples if samples.ndim == 3 else samples[..., None]
    values = shown(samples[..., : _COLOURS[photometric]], bits, note)
    values = values[..., 0] if _COLOURS[photometric] == 1 else values
    if photometric == _WHITE_IS_ZERO:
        values = np.float32(1.0) - values
    return turned(values, *tags.get(_ORIENTATION, (1,)))

"""Stored values of a frame out of its words: signed where they are, without the bits that are none of the pixel's.

Bits above Bits Stored may hold anything (PS3.5 8.1.1): an old overlay, a mark that all pixels have, or a padding value
that has no room below. Where they hold the picture itself, the header lies, and cutting them off would fold it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from sfumato_common.dicom.elements import Note, integer, named
from sfumato_common.dicom.jpeg import looks_like_ybr
from sfumato_common.types import AnyArray

_FEW = 0.05  # of all pixels: an overlay or a marker, and no picture
_SAMPLES = 2**12
_GREYER, _SWAPPED, _SOME_ROWS = 0.5, 0.25, 64
_FEWEST = 8  # rows and columns: smaller pictures show no order
_SMOOTHER = 0.7  # the edges of a whole picture, of those of one that folds
# Y of so few is dark, and beside it stands no colour; red of such values stands beside any green and blue
_DARK, _SOME_DARK = 64, 0.01
_OVERLAYS, _PLACE = range(0x6000, 0x6020, 2), 0x0102


def stored_values(plain: Dataset, frame: int, shift: int) -> tuple[AnyArray, AnyArray | None]:
    """Stored values [H, W] or [H, W, 3] of a frame that is not compressed here, `shift` bits lower; YBR becomes RGB.

    And its whole words [H, W], signed as the values are, where some of them hold more than those. Raises what pydicom
    does.
    """
    if shift:  # with all bits up to the highest, and the header as it was for the next frame
        bits = plain.BitsStored
        plain.BitsStored = int(bits) + shift
        try:
            return np.asarray(stored_values(plain, frame, 0)[0] >> shift), None
        finally:
            plain.BitsStored = bits
    width = int(plain.get("BitsAllocated") or 0)
    bits, signed = int(plain.get("BitsStored") or width), plain.get("PixelRepresentation") != 0
    if not _is_plain(plain, width):
        return np.asarray(pixel_array(plain, index=frame)), None
    # as pydicom does it, without its copies of a large image: high bits are hardly ever set
    dtype, shape = np.dtype(f"<{'i' if signed else 'u'}{width // 8}"), (int(plain.Rows), int(plain.Columns))
    words = np.frombuffer(plain.PixelData, dtype, shape[0] * shape[1]).reshape(shape)
    top = 2**bits - 1
    if bits == width or (not signed and int(words.max()) <= top):
        return words, None
    if not signed:
        return words & words.dtype.type(top), words
    above = width - bits
    values = (words << above) >> above  # the highest bit that is stored is the sign
    return values, None if np.array_equal(values, words) else words


def _is_plain(dataset: Dataset, words: int) -> bool:
    """Whether its pixel data are one whole grey frame of 8 or 16 bits, uncompressed, least byte first."""
    native = dataset.file_meta.TransferSyntaxUID in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    single = dataset.get("SamplesPerPixel") == 1 and (integer(dataset, "NumberOfFrames") or 1) == 1
    if not native or not single or words not in (8, 16) or not isinstance(dataset.get("PixelData"), bytes):
        return False
    return len(dataset.PixelData) >= int(dataset.Rows) * int(dataset.Columns) * words // 8


def whole_picture(
    dataset: Dataset, words: AnyArray, stored: AnyArray, padding: AnyArray | None, note: Note
) -> AnyArray:
    """`stored`, or the words [H, W] where they are the picture, and Bits Stored cuts it off.

    Told by their edges: a picture that is cut off above folds, and jumps from white to black.
    """
    if any(_value(dataset, group) for group in _OVERLAYS):
        return stored
    bits, inside = int(dataset.BitsStored), words.reshape(-1) if padding is None else words[~padding]
    more = inside >= 2**bits
    if words.dtype.kind == "i":  # a negative number may have zeros above its sign, or ones
        more |= inside < -(2 ** (bits - 1))
    # a plane of an overlay leaves the next bit free, or is sparse; a picture does not
    next_bit = (inside >> bits) & 1
    if float(more.mean()) <= _FEW or int(next_bit.min()) == int(next_bit.max()):
        return stored
    said = f"its {named('BitsStored')} is {bits}, and its pixels hold more"
    beyond = inside[more]
    _, counts = np.unique(beyond[:: max(1, len(beyond) // _SAMPLES)], return_counts=True)
    # one value alone is a mark or what lies outside the beam; what makes the picture rougher is none of it
    if 2 * counts.max() > counts.sum() or edges(words) > _SMOOTHER * edges(stored):
        note(f"{said}, which is no picture: cut off")
        return stored
    note(f"{said}: shown by the data")
    return words


def edges(values: AnyArray) -> float:
    """How large the step to the next pixel of a row is, on average, as a share of the range."""
    floats = values.astype(np.float32)
    return float(np.abs(np.diff(floats, axis=1)).mean() / max(1.0, float(np.ptp(floats))))


def planes_as_they_are(plain: Dataset, note: Note) -> None:
    """Planar Configuration (PS3.3 C.7.6.3.1.3) of uncompressed colours, told by their edges where it lies.

    Samples that are read in the other order are three small pictures in one, and jump.
    """
    said, what = integer(plain, "PlanarConfiguration"), named("PlanarConfiguration")
    if plain.SamplesPerPixel != 3 or plain.file_meta.TransferSyntaxUID.is_compressed:
        return
    if said not in (0, 1):
        plain.PlanarConfiguration = said = 0
        note(f"its {what} is neither 0 nor 1: taken as 0")
    width, samples = int(plain.get("BitsAllocated") or 0), 3 * int(plain.Rows) * int(plain.Columns)
    if width not in (8, 16) or plain.PhotometricInterpretation == "YBR_FULL_422":
        return
    if len(plain.PixelData) < samples * width // 8 or min(int(plain.Rows), int(plain.Columns)) < _FEWEST:
        return
    order = "<" if plain.file_meta.TransferSyntaxUID.is_little_endian else ">"
    flat = np.frombuffer(plain.PixelData, f"{order}u{width // 8}", samples)
    shape = (int(plain.Rows), int(plain.Columns))
    pictures = [flat.reshape(*shape, 3), np.moveaxis(flat.reshape(3, *shape), 0, -1)]
    found = 1 - said
    if _is_rather(pictures[found], pictures[said], luma=str(plain.PhotometricInterpretation).startswith("YBR")):
        note(f"its {what} is {said}, its samples lie as {found} says: read as such")
        plain.PlanarConfiguration = found


def _is_rather(one: AnyArray, other: AnyArray, luma: bool) -> bool:
    """Whether samples [H, W, 3] are the picture of `one`, and not of `other`, which has them in the other order.

    Of Y, Cb and Cr the first has the picture. Else the picture is smoother in itself, or in its colours alone where it
    is all noise.
    """
    if luma:
        weak, strong = (_colour_to_luma(picture) for picture in (one, other))
        return weak < _SMOOTHER * strong
    (beside, across), (beside_other, across_other) = (_jumps(picture) for picture in (one, other))
    if across_other == 0.0:  # grey in every pixel: a wrong order is not, however smooth
        return False
    greyer = beside <= beside_other and across < _GREYER * across_other
    return beside < _SMOOTHER * beside_other or greyer


def _jumps(colours: AnyArray) -> tuple[float, float]:
    """How far a sample [H, W, 3] is on average from those beside and below it, and from that of the next colour."""
    some = colours.astype(np.float32)
    down, right, across = (float(np.abs(np.diff(some, axis=axis)).mean()) for axis in range(3))
    return down + right, across


def _colour_to_luma(samples: AnyArray) -> float:
    luma, blue, red = (float(samples[..., channel].std()) for channel in range(3))
    return (blue + red) / max(luma, 1e-6)


def bytes_as_they_are(plain: Dataset, note: Note) -> None:
    """Put the bytes of uncompressed 16-bit words into the order that the transfer syntax says.

    A picture whose bytes lie in the other order jumps at every pixel; some of its rows show it.
    """
    syntax = plain.file_meta.TransferSyntaxUID
    width = int(plain.Columns) * int(plain.SamplesPerPixel)
    if syntax.is_compressed or plain.get("BitsAllocated") != 16 or not isinstance(plain.get("PixelData"), bytes):
        return
    data = plain.PixelData
    words = np.frombuffer(data, f"{'<' if syntax.is_little_endian else '>'}u2", len(data) // 2)
    if width < _FEWEST or (rows := len(words) // width) < _FEWEST:
        return
    some = words[: rows * width].reshape(rows, width)[:: max(1, rows // _SOME_ROWS)]
    if not (some & 0xFF).any():  # values in the high bytes alone are as smooth in the low ones
        return
    step = int(plain.SamplesPerPixel)
    said, found = (
        float(np.abs(np.diff(each.astype(np.float32)[:, ::step], axis=1)).mean()) for each in (some, some.byteswap())
    )
    if found < _SWAPPED * said:
        note(f"the bytes of its {named('PixelData')} are swapped against its {named('TransferSyntaxUID')}: put right")
        plain.PixelData = words.byteswap().tobytes() + data[2 * len(words) :]


def colours_as_they_are(plain: Dataset, note: Note) -> None:
    """Say of uncompressed colours of 8 bits what they are, RGB or Y Cb Cr, where they cannot be what they say.

    Which of them half the samples of a colour has is told by the length of the pixel data.
    """
    what, said = named("PhotometricInterpretation"), str(plain.PhotometricInterpretation)
    if plain.SamplesPerPixel != 3 or plain.get("BitsAllocated") != 8 or said not in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        return
    pixels = int(plain.Rows) * int(plain.Columns) * (integer(plain, "NumberOfFrames") or 1)
    found = said
    if not plain.file_meta.TransferSyntaxUID.is_encapsulated and said != "RGB":
        whole = len(plain.PixelData) >= 3 * pixels
        found = "YBR_FULL" if whole else "YBR_FULL_422" if len(plain.PixelData) >= 2 * pixels else said
        plain.PhotometricInterpretation = found
    if found != "YBR_FULL_422":
        samples = np.asarray(pixel_array(plain, index=0, raw=True))
        if found == "RGB" and float((samples[..., 0] < _DARK).mean()) > _SOME_DARK and looks_like_ybr(samples):
            found = "YBR_FULL"
        elif found == "YBR_FULL" and not looks_like_ybr(samples, _FEW):
            found = "RGB"
    if found != said:
        note(f"its {what} is {said}, its samples are {found}: read as such")
        plain.PhotometricInterpretation = found


def _value(dataset: Dataset, group: int) -> Any:
    element = dataset.get((group, _PLACE))
    return element.value if element is not None else None

"""Pixels in and out: strict PNG (ISO/IEC 15948), its pixel hash, and exact area-average resizing.

PNGs are deterministic and without metadata, and the reader takes IHDR, IDAT, IEND and nothing else: text, time and
colour chunks could carry a patient's name, bytes after the picture anything at all.

Resizing is a box filter: every output pixel is the mean of the source area that it covers. One function for the
phantom, for every reader and for whoever draws contact sheets, so that all images of a study went through the same
arithmetic. Separable: out = R_h @ image @ R_w^T with small cached dense matrices, whose rows sum to 1.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image

from sfumato_common.errors import VerificationError
from sfumato_common.types import AnyArray, ByteImages, pixel_dtype

FloatImage = npt.NDArray[np.float32]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_SIDE = 1024
_DAMAGED = cast("type[Exception]", isal_zlib.error)  # its stub has an instance
_BLOCK = 2**16 - 1  # bytes of a stored block, at most
_SOME = 2**12  # values of an image that are compared first
_LARGE = 4  # times the target, from which on most of an area matrix is zero
# luma of ITU-R BT.601, which is also the Y of YBR_FULL (DICOM PS3.3 C.7.6.3.1.2)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# how many bits detectors give; what writes PNG or npz often keeps them so in 16
DEPTHS = (8, 10, 12, 14, 16)
CHANNELS_OF = {(0, 8): 1, (0, 16): 1, (2, 8): 3}  # PNG (colour type, bit depth) -> channels
_MODES = {(1, 8): ("L", "L"), (1, 16): ("I;16", "I;16B"), (3, 8): ("RGB", "RGB")}  # Pillow's, in memory and in a PNG


def encode_png(image: ByteImages) -> bytes:
    """uint8 [S, S] or [S, S, 3], or uint16 [S, S] -> PNG bytes, the same for the same pixels."""
    grey = image.ndim == 2
    deep = grey and image.dtype == np.uint16
    known = deep or image.dtype == np.uint8
    if not known or image.shape[0] != image.shape[1] or (not grey and image.shape[2:] != (3,)):
        raise ValueError("encode_png wants uint8 [S, S] or [S, S, 3], or uint16 [S, S]")
    stream = io.BytesIO()
    mode = "I;16" if deep else "L" if grey else "RGB"
    Image.fromarray(image, mode).save(stream, format="PNG", optimize=False, compress_level=6)
    return stream.getvalue()


def decode_png(png: bytes) -> ByteImages:
    """PNG bytes -> uint8 [S, S] or [S, S, 3], or uint16 [S, S].

    Raises VerificationError for anything that is not one plain picture.
    """
    (pixels,) = decode_pngs([png])
    return pixels


def decode_pngs(pngs: Sequence[bytes]) -> list[ByteImages]:
    """Each PNG as `decode_png` has it, and in half the time for small ones: Pillow is asked once.

    Raises VerificationError where one is not a plain picture, or they are not of one size, channels and depth.
    """
    opened = [_open(png) for png in pngs]
    side, channels, depth, _ = opened[0]
    if any(one[:3] != opened[0][:3] for one in opened):
        raise VerificationError("images are not of one size and depth; ask the sender again")
    width = side * channels * depth // 8 + 1
    # a row of zeros between pictures: the first row of each has nothing above it (clause 9.2)
    rows = bytes(width).join([_unpack(one[3], side * width) for one in opened])
    mode, packed = _MODES[channels, depth]
    height = len(opened) * (side + 1) - 1
    try:
        # unpacked once: Pillow gets the rows in a stream that packs nothing, and undoes their filters
        picture = Image.frombytes(mode, (side, height), _stored(rows), "zip", packed)
    except Exception:
        # an unknown filter; Pillow reports damage as ValueError, OSError or SystemError
        raise VerificationError("an image does not decode; ask the sender again") from None
    pixels = np.frombuffer(picture.tobytes(), f"<u{depth // 8}").astype(pixel_dtype(depth), copy=False)
    stacked = pixels.reshape((height, side) if channels == 1 else (height, side, 3))
    return [stacked[top : top + side] for top in range(0, height, side + 1)]


def pixel_hash(pixels: ByteImages) -> str:
    """Lower-case hexadecimal sha256 over the decoded pixels, row by row, channels last, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(pixels, f"<u{pixels.itemsize}").data).hexdigest()


def _open(png: bytes) -> tuple[int, int, int, bytes | memoryview]:
    """(side, channels, bit depth, compressed picture) of a PNG of the three needed chunk types, checksums right."""
    chunks = list(_chunks(png))
    kinds = [kind for kind, _ in chunks]
    if len(kinds) < 3 or kinds != [b"IHDR", *[b"IDAT"] * (len(kinds) - 2), b"IEND"] or chunks[-1][1]:
        raise VerificationError("an image holds something besides its picture; write it without metadata")
    pieces = [body for _, body in chunks[1:-1]]
    return *_form(bytes(chunks[0][1])), pieces[0] if len(pieces) == 1 else b"".join(pieces)


@lru_cache(maxsize=16)
def _form(header: bytes) -> tuple[int, int, int]:
    """(side, channels, bit depth) that an IHDR chunk states (clause 11.2.1)."""
    if len(header) != 13:
        raise VerificationError("an image's header is damaged; ask the sender again")
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", header)
    if width != height or not 1 <= width <= LARGEST_SIDE or (colour, depth) not in CHANNELS_OF or any(rest):
        raise VerificationError("an image is not a square grey picture of 8 or 16 bits or an RGB picture of 8")
    return width, CHANNELS_OF[colour, depth], depth


def _chunks(png: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of each chunk; bodies are views of `png`, which is not copied."""
    if not png.startswith(SIGNATURE):
        raise VerificationError("an image is not a PNG; ask the sender again")
    at, view = len(SIGNATURE), memoryview(png)
    while at < len(png):
        if at + 12 > len(png):
            raise VerificationError("an image is cut short; ask the sender again")
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        checksum = png[end : end + 4]
        # over kind and body
        if len(checksum) != 4 or isal_zlib.crc32(view[at + 4 : end]) != int.from_bytes(checksum, "big"):
            raise VerificationError("an image is damaged; ask the sender again")
        yield png[at + 4 : at + 8], view[at + 8 : end]
        at = end + 4


def _stored(rows: bytes) -> bytes:
    """`rows` as a zlib stream that packs nothing (RFC 1950, RFC 1951 3.2.4): zlib.compress(rows, 0) in less time."""
    blocks: list[bytes | memoryview] = [b"\x78\x01"]
    view = memoryview(rows)
    for start in range(0, len(rows), _BLOCK):
        block = view[start : start + _BLOCK]
        last = start + _BLOCK >= len(rows)
        blocks += (struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block)
    return b"".join((*blocks, struct.pack(">I", isal_zlib.adler32(rows))))


def _unpack(compressed: bytes | memoryview, expected: int) -> bytes:
    """The rows of a picture: exactly `expected` bytes, and nothing follows them (no bomb, no hidden tail).

    By ISA-L, which takes a third to half of zlib's time; `tests/common/test_png.py` holds it to what zlib takes.
    """
    unpacker = isal_zlib.decompressobj()
    try:
        rows = unpacker.decompress(compressed, expected + 1)
    except _DAMAGED:
        raise VerificationError("an image does not unpack; ask the sender again") from None
    if len(rows) != expected or not unpacker.eof or unpacker.unused_data:
        raise VerificationError("an image unpacks to another size than it states; ask the sender again")
    return rows


@lru_cache(maxsize=256)
def area_matrix(source: int, target: int) -> FloatImage:
    """The [target, source] matrix of overlaps: row i averages source interval [i, i + 1) * source / target."""
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    overlap = np.clip(high - low, 0.0, None)
    matrix: FloatImage = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def _fewer_rows(matrix: FloatImage, image: FloatImage) -> FloatImage:
    """`matrix` [h, H] @ `image` [H, W] for an `area_matrix`: of a large image each row takes only those it covers."""
    target, source = matrix.shape
    if source < _LARGE * target:
        return matrix @ image
    edges = np.arange(target + 1) * (source / target)
    first, last = np.floor(edges[:-1]).astype(int), np.minimum(np.ceil(edges[1:]).astype(int), source)
    return np.stack([matrix[i, first[i] : last[i]] @ image[first[i] : last[i]] for i in range(target)])


def area_resize(image: AnyArray, height: int, width: int) -> FloatImage:
    """Image [H, W] or [H, W, C] -> float32 [height, width(, C)] by exact area averaging, in the image's own units."""
    rows, columns = area_matrix(image.shape[0], height), area_matrix(image.shape[1], width)
    floats = np.asarray(image, dtype=np.float32)
    if floats.ndim == 2:
        # the cheaper product first: (h x H)(H x W) then (h x W)(W x w)
        return np.ascontiguousarray(_fewer_rows(rows, floats) @ columns.T)
    planes = [_fewer_rows(rows, np.ascontiguousarray(floats[..., c])) @ columns.T for c in range(floats.shape[2])]
    return np.ascontiguousarray(np.stack(planes, axis=-1))


def fit_square(image: AnyArray, size: int, pixel: tuple[float, float] = (1.0, 1.0)) -> FloatImage:
    """Image [H, W(, C)] -> float32 [size, size(, C)]: longer side scaled to `size`, centred, the rest black (0).

    Padding rather than cropping keeps the whole anatomy; 0 is the value of unexposed film after ingest. `pixel` is the
    height and width of a source pixel in any unit; those of the result are square.
    """
    height, width = image.shape[0] * pixel[0], image.shape[1] * pixel[1]
    longer = max(height, width)
    inner_height, inner_width = max(1, round(height * size / longer)), max(1, round(width * size / longer))
    inner = area_resize(image, inner_height, inner_width)
    if inner.shape[:2] == (size, size):
        return inner
    square = np.zeros((size, size, *image.shape[2:]), dtype=np.float32)
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    square[top : top + inner_height, left : left + inner_width] = inner
    return square


def to_grey(image: AnyArray) -> AnyArray:
    """Luma [H, W] of colours [H, W, 3]."""
    return np.asarray(image @ _LUMA)


def varies(values: AnyArray) -> bool:
    """Whether not all of `values` are equal; some of them say so of almost every image."""
    flat = values.reshape(-1)
    some = flat[:: max(1, len(flat) // _SOME)]
    return bool((some != some[:1]).any()) or bool((flat != flat[:1]).any())


def depth_of(samples: AnyArray) -> int:
    """The fewest bits of a detector that hold the largest of 16-bit `samples`."""
    largest = int(samples.max()) if samples.size else 0
    return next(bits for bits in DEPTHS if largest < 2**bits)


def in_form(
    display: AnyArray, size: int, channels: int, bits: int, pixel: tuple[float, float] = (1.0, 1.0)
) -> ByteImages:
    """Display values 0..1, [H, W] or [H, W, 3] -> uint8 or uint16 [size, size] or [size, size, 3].

    Padded to a square on black (`fit_square`), area-averaged, colour to grey by luma and grey to colour by repetition.
    """
    square = fit_square(to_grey(display) if display.ndim == 3 and channels == 1 else display, size, pixel)
    if square.ndim == 2 and channels == 3:
        square = np.repeat(square[..., None], 3, axis=2)
    # float32 has 24 bits: 16-bit values are exact to a 256th of a grey level
    top = np.float32(2**bits - 1)
    pixels: ByteImages = np.rint(np.clip(square, 0.0, 1.0) * top).astype(pixel_dtype(bits))
    return pixels

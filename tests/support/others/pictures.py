"""PNG, JPEG and TIFF files of every depth, order, colour and turn, some by other programs' habits."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from support.others.dicom_streams import luma, tinted
from support.others.picture import Case, Display, stored, truth

PNG = b"\x89PNG\r\n\x1a\n"


def held(name: str, data: bytes, shown: Display | str, tolerance: float = 1.5, **terms: Any) -> Case:
    """A case of one file."""

    def write(place: Path) -> None:
        place.write_bytes(data)

    return Case(name, write, shown, terms, tolerance)


def saved(image: Image.Image, kind: str, **terms: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **terms)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, bits: int, colour: int, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG (RFC 2083) of samples [H, W] or [H, W, C] in so many bits, with chunks before its data."""
    height, width = values.shape[:2]
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    elif bits == 8:
        rows = [row.astype(np.uint8).tobytes() for row in values]
    else:
        split = [[(row >> (bits - 1 - at)) & 1 for at in range(bits)] for row in values]
        rows = [np.packbits(np.stack(parts, axis=1).reshape(-1).astype(np.uint8)).tobytes() for parts in split]
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return PNG + head + b"".join(before) + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def pngs() -> Iterator[Case]:
    """PNG."""
    t, v8, v16, v12 = truth(), stored(8), stored(16), stored(12)
    for bits in (1, 2, 4):
        values = stored(bits)
        yield held(f"png grey {bits}", png(values, bits, 0), values / (2**bits - 1))
    for bits in (8, 10, 12, 14, 16):
        yield held(f"png grey 16 holds {bits}", png(stored(bits), 16, 0), t)
        full = np.full((32, 32), 65535)
        alpha = np.dstack([stored(bits).astype(np.uint16), full])
        yield held(f"png grey and alpha 16 holds {bits}", png(alpha, 16, 4), t)
        yield held(f"png colour 16 holds {bits}", png(np.dstack([stored(bits)] * 3), 16, 2), t)
        yield held(f"png rgba 16 holds {bits}", png(np.dstack([stored(bits)] * 3 + [full]), 16, 6), t)
    yield held("png 16 with bits", png(v12, 16, 0), v12 / 16383, bits=14)
    yield held("png 16 more than bits", png(v16, 16, 0), "more than the 12 bits", bits=12)
    clear = np.zeros((32, 32), np.uint8)
    yield held("png grey and clear alpha", png(np.dstack([v8, clear]), 8, 4), t)
    yield held("png rgba clear", png(np.dstack([v8] * 3 + [clear]), 8, 6), t)
    yield held("png transparent grey", png(v8, 8, 0, chunk(b"tRNS", b"\0\0")), t)
    ramp = np.arange(256, dtype=np.uint8)
    table = chunk(b"PLTE", np.repeat(255 - ramp, 3).tobytes())
    yield held("png palette falling", png(v8, 8, 3, table), 1 - t)
    yield held("png palette alpha", png(v8, 8, 3, table, chunk(b"tRNS", bytes(ramp))), 1 - t)
    for bits in (1, 2, 4):
        few = np.rint(np.arange(2**bits) * 255 / (2**bits - 1)).astype(np.uint8)
        yield held(
            f"png palette {bits}",
            png(stored(bits), bits, 3, chunk(b"PLTE", np.repeat(few, 3).tobytes())),
            stored(bits) / (2**bits - 1),
        )
    colour = tinted()
    yield held("png colour", png(colour, 8, 2), luma(colour))
    for name, extra in (
        ("gamma", chunk(b"gAMA", struct.pack(">I", 100000))),
        ("srgb", chunk(b"sRGB", b"\0")),
        ("density", chunk(b"pHYs", struct.pack(">IIB", 2000, 1000, 1))),
        ("private", chunk(b"prVt", b"x" * 10000)),
        ("background", chunk(b"bKGD", b"\0\xff")),
        ("significant", chunk(b"sBIT", b"\x08")),
        ("text", chunk(b"tEXt", b"Comment\0" + b"x" * 300000)),
    ):
        yield held(f"png with {name}", png(v8, 8, 0, extra), t)
    yield held("png interlaced", adam7(v8), t)
    yield held("png significant 12", png(v12 << 4, 16, 0, chunk(b"sBIT", b"\x0c")), t)
    yield held("png trailing", png(v8, 8, 0) + b"\0" * 100, t)
    bad = bytearray(png(v8, 8, 0, chunk(b"tEXt", b"Comment\0hello")))
    bad[bad.index(b"hello")] ^= 1
    yield held("png wrong sum of a text", bytes(bad), t)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield held(f"png turned {turn}", png(turned(v8, turn), 8, 0, chunk(b"eXIf", exif.tobytes()[6:])), t)
    two = [Image.fromarray(v8), Image.fromarray(v8.T.copy())]
    yield held("png film", saved(two[0], "PNG", save_all=True, append_images=two[1:]), "several pictures")
    yield held("png cut off", png(v8, 8, 0)[:200], "damaged|cut off")
    yield held("png nothing", b"", "empty")
    yield held("png header only", png(v8, 8, 0)[:40], "damaged|cut off")
    yield held("png damaged data", png(v8, 8, 0).replace(b"IDAT", b"IDAT\0\1\2", 1), "damaged|cut off")
    yield held("a gif", saved(Image.fromarray(v8), "GIF"), "GIF")
    yield held("a bmp", saved(Image.fromarray(v8), "BMP"), "BMP")
    yield held("a webp", saved(Image.fromarray(colour), "WEBP"), "WebP")
    yield held("a jpeg 2000", imagecodecs.jpeg2k_encode(v8, level=0), "JPEG 2000")
    yield held("a dicom", b"\0" * 128 + b"DICM" + b"\0" * 40, "DICOM")
    yield held("a page", b"<!DOCTYPE html><html>", "HTML|text")
    yield held("a pdf", b"%PDF-1.7 ", "PDF")
    yield held("a pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "pointer")


def adam7(values: np.ndarray) -> bytes:
    """Interlaced, RFC 2083 2.6."""
    data = b""
    for y, x, dy, dx in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        data += b"".join(b"\0" + row.tobytes() for row in values[y::dy, x::dx])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8, 0, 0, 0, 1))
    return PNG + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores whose picture has to be shown by this Orientation (Exif 2.3, 4.6.4 A)."""
    ways = {
        1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1],
        5: values.T, 6: np.rot90(values, 1), 7: values[::-1, ::-1].T, 8: np.rot90(values, -1),
    }  # fmt: skip
    return np.ascontiguousarray(ways[orientation])


def jpegs() -> Iterator[Case]:
    """JPEG."""
    t, v8, v12 = truth(), stored(8), stored(12)
    colour = tinted()
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield held(f"jpeg turned {turn}", saved(Image.fromarray(turned(v8, turn)), "JPEG", quality=98, exif=exif), t, 3)
    for turn in (0, 9, 255):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield held(f"jpeg turned {turn}", saved(Image.fromarray(v8), "JPEG", quality=98, exif=exif), t, 3)
    yield held("jpeg progressive", saved(Image.fromarray(v8), "JPEG", quality=98, progressive=True), t, 3)
    yield held(
        "jpeg progressive colour", saved(Image.fromarray(colour), "JPEG", quality=98, progressive=True), luma(colour), 3
    )
    yield held("jpeg 4:2:0", saved(Image.fromarray(colour), "JPEG", quality=98, subsampling=2), luma(colour), 3)
    yield held("jpeg rgb", saved(Image.fromarray(colour), "JPEG", quality=98, keep_rgb=True), luma(colour), 3)
    yield held("jpeg trailing", saved(Image.fromarray(v8), "JPEG", quality=98) + b"\0" * 64, t, 3)
    inks = Image.fromarray(colour).convert("CMYK")
    yield held("jpeg inks", saved(inks, "JPEG", quality=98), "inks")
    yield held("jpeg 12", imagecodecs.jpeg8_encode(v12, level=98, bitspersample=12), t, 3)
    yield held("jpeg lossless 8", imagecodecs.ljpeg_encode(v8, bitspersample=8), t)
    yield held("jpeg lossless 12", imagecodecs.ljpeg_encode(v12, bitspersample=12), t)
    yield held("jpeg lossless 16", imagecodecs.ljpeg_encode(stored(16), bitspersample=16), t)
    yield held(
        "jpeg arithmetic?", saved(Image.fromarray(v8), "JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1), "JPEG|damaged"
    )
    whole = saved(Image.fromarray(v8), "JPEG", quality=98)
    yield held("jpeg cut off", whole[: len(whole) * 2 // 3], "damaged|cut off")
    yield held("jpeg without end", whole[:-2], t, 3)
    yield held(
        "jpeg mpo", saved(Image.fromarray(v8), "MPO", save_all=True, append_images=[Image.fromarray(v8)]), "several|."
    )
    yield held("a jpeg-ls", imagecodecs.jpegls_encode(v8), "JPEG-LS|damaged")


def all_cases() -> list[Case]:
    """All of this module."""
    return [each for maker in (pngs, jpegs) for each in maker()]

"""PNG, JPEG and TIFF files of every depth, order, colour and turn, some by other programs' habits."""
# ruff: noqa: E501 - a row a case

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


class Tiff:
    """A TIFF 6.0 (or BigTIFF) of one strip or of tiles."""

    def __init__(self, order: str = "<", big: bool = False) -> None:
        self.order, self.big = order, big

    def make(
        self,
        values: np.ndarray,
        photometric: int = 1,
        compression: int = 1,
        sample_format: int | None = None,
        **more: Any,
    ) -> bytes:
        """`values` [H, W] or [H, W, C]; more: planar, tile, orientation, predictor, bits, packed, pages."""
        channels = values.shape[2] if values.ndim == 3 else 1
        bits = more.get("bits", values.dtype.itemsize * 8)
        packed = more.get("packed")
        raw_type = values.astype(values.dtype.newbyteorder(self.order))
        if more.get("tile"):
            side = more["tile"]
            strips = [
                np.ascontiguousarray(raw_type[y : y + side, x : x + side]).tobytes()
                for y in range(0, values.shape[0], side)
                for x in range(0, values.shape[1], side)
            ]
        elif more.get("planar"):
            strips = [np.ascontiguousarray(raw_type[..., k]).tobytes() for k in range(channels)]
        elif packed is not None:
            strips = [packed]
        elif more.get("rows"):
            strips = [raw_type[y : y + more["rows"]].tobytes() for y in range(0, values.shape[0], more["rows"])]
        else:
            strips = [raw_type.tobytes()]
        if compression == 8:
            strips = [zlib.compress(strip) for strip in strips]
        elif compression == 5:
            strips = [imagecodecs.lzw_encode(strip) for strip in strips]
        elif compression == 32773:
            strips = [imagecodecs.packbits_encode(strip) for strip in strips]
        tags: list[tuple[int, int, list[int]]] = [
            (256, 4, [values.shape[1]]), (257, 4, [values.shape[0]]), (258, 3, [bits] * channels), (259, 3, [compression]),
            (262, 3, [photometric]), (277, 3, [channels]), (284, 3, [2 if more.get("planar") else 1]),
        ]  # fmt: skip
        if more.get("orientation"):
            tags.append((274, 3, [more["orientation"]]))
        if sample_format:
            tags.append((339, 3, [sample_format] * channels))
        if more.get("extra") is not None:
            tags.append((338, 3, [more["extra"]]))
        if more.get("palette"):
            tags.append((320, 3, more["palette"]))
        if more.get("tile"):
            tags += [(322, 3, [more["tile"]]), (323, 3, [more["tile"]])]
        else:
            tags.append((278, 4, [more.get("rows") or values.shape[0]]))
        return self._bytes(tags, strips, (324, 325) if more.get("tile") else (273, 279), more.get("pages", 1))

    def _bytes(
        self, tags: list[tuple[int, int, list[int]]], strips: list[bytes], where: tuple[int, int], pages: int
    ) -> bytes:
        o, wide = self.order, self.big
        mark = b"II" if o == "<" else b"MM"
        head = 16 if wide else 8
        places, at = [], head
        for strip in strips:
            places.append(at)
            at += len(strip) + len(strip) % 2
        data = b"".join(strip + b"\0" * (len(strip) % 2) for strip in strips)
        number = 16 if wide else 4
        tags = sorted([*tags, (where[0], number, places), (where[1], number, [len(strip) for strip in strips])])
        codes, sizes = {3: "H", 4: "I", 16: "Q"}, {3: 2, 4: 4, 16: 8}
        entry, inline = (20, 8) if wide else (12, 4)
        out = b""
        for page in range(pages):
            start = head + len(data) + len(out)
            count = struct.pack(o + ("Q" if wide else "H"), len(tags))
            after = start + len(count) + entry * len(tags) + (8 if wide else 4)
            entries, beyond = b"", b""
            for tag, kind, numbers in tags:
                value = struct.pack(f"{o}{len(numbers)}{codes[kind]}", *numbers)
                entries += struct.pack(o + ("HHQ" if wide else "HHI"), tag, kind, len(numbers))
                assert sizes[kind] * len(numbers) == len(value)
                if len(value) <= inline:
                    entries += value.ljust(inline, b"\0")
                else:
                    entries += struct.pack(o + ("Q" if wide else "I"), after + len(beyond))
                    beyond += value
            following = after + len(beyond) if page + 1 < pages else 0
            out += count + entries + struct.pack(o + ("Q" if wide else "I"), following) + beyond
        first = head + len(data)
        if wide:
            return mark + struct.pack(o + "HHHQ", 43, 8, 0, first) + data + out
        return mark + struct.pack(o + "HI", 42, first) + data + out


def tiffs() -> Iterator[Case]:
    """TIFF."""
    t, v8, v16, v12 = truth(), stored(8), stored(16), stored(12)
    colour = tinted()
    for order in "<>":
        for big in (False, True):
            tiff, name = Tiff(order, big), f"tiff {order} {'big ' if big else ''}"
            yield held(name + "8", tiff.make(v8), t)
            yield held(name + "16", tiff.make(v16), t)
            yield held(name + "16 white is zero", tiff.make(65535 - v16, photometric=0), t)
            yield held(name + "16 holds 12", tiff.make(v12), t)
    tiff = Tiff()
    yield held("tiff 8 white is zero", tiff.make(255 - v8, photometric=0), t)
    yield held("tiff 16 holds 12 white is zero", tiff.make(4095 - v12, photometric=0), t)
    for compression in (5, 8, 32773):
        yield held(f"tiff compressed {compression}", tiff.make(v16, compression=compression), t)
        yield held(f"tiff compressed colour {compression}", tiff.make(colour, 2, compression), luma(colour))
    yield held("tiff tiles", tiff.make(v8, tile=16), t)
    yield held("tiff tiles 16", tiff.make(v16, tile=16, compression=8), t)
    yield held("tiff strips", tiff.make(v16, rows=5), t)
    yield held("tiff colour", tiff.make(colour, 2), luma(colour))
    yield held("tiff planar", tiff.make(colour, 2, planar=True), luma(colour))
    yield held("tiff colour 16", tiff.make(np.dstack([v16] * 3), 2), t)
    yield held("tiff colour 16 holds 12", tiff.make(np.dstack([v12] * 3), 2), t)
    yield held("tiff planar 16", tiff.make(np.dstack([v16] * 3), 2, planar=True), t)
    yield held("tiff grey alpha", tiff.make(np.dstack([v8, v8 * 0]), 1, extra=2), t)
    palette = list(range(255 * 257, -1, -257)) * 3
    yield held("tiff palette", tiff.make(v8, 3, palette=palette), 1 - t)
    for turn in range(1, 9):
        yield held(f"tiff turned {turn}", tiff.make(turned(v8, turn), orientation=turn), t)
        yield held(f"tiff turned {turn} 16", tiff.make(turned(v16, turn), orientation=turn), t)
    twelve = v12.reshape(-1, 2).astype(int)
    packed = np.stack([twelve[:, 0] >> 4, (twelve[:, 0] & 15) << 4 | twelve[:, 1] >> 8, twelve[:, 1] & 255], 1).astype(
        np.uint8
    )
    yield held("tiff 12 packed", tiff.make(v12, bits=12, packed=packed.tobytes()), t)
    yield held(
        "tiff 4",
        tiff.make(stored(4), bits=4, packed=((stored(4)[:, ::2] << 4) | stored(4)[:, 1::2]).tobytes()),
        stored(4) / 15,
    )
    yield held("tiff 1", tiff.make(stored(1), bits=1, packed=np.packbits(stored(1), axis=1).tobytes()), stored(1) * 1.0)
    yield held("tiff 32", tiff.make(v16.astype(np.uint32)), t)
    yield held("tiff 32 deep", tiff.make(v16.astype(np.uint32) << 8), "16 bits")
    for name, values in (
        ("signed 16", stored(16, signed=True)),
        ("signed 8", stored(8, signed=True)),
        ("signed 12", stored(12, signed=True)),
    ):
        yield held(f"tiff {name}", tiff.make(values, sample_format=2), "signed|floating")
    yield held("tiff float", tiff.make(t.astype(np.float32), sample_format=3), "floating")
    yield held("tiff double", tiff.make(t.astype(np.float64), sample_format=3), "floating")
    yield held("tiff pages", tiff.make(v8, pages=2), "several pictures")
    yield held("tiff inks", tiff.make(np.dstack([v8] * 4), 5), "inks")
    yield held("tiff cut off", tiff.make(v8)[:900], "damaged|cut off")
    yield held("tiff by pillow", saved(Image.fromarray(v16), "TIFF", compression="tiff_lzw"), t)
    yield held("tiff jpeg", saved(Image.fromarray(v8), "TIFF", compression="jpeg", quality=98), t, 3)
    yield held(
        "tiff jpeg colour", saved(Image.fromarray(colour), "TIFF", compression="jpeg", quality=98), luma(colour), 3
    )


def all_cases() -> list[Case]:
    """All of this module."""
    return [each for maker in (pngs, jpegs, tiffs) for each in maker()]

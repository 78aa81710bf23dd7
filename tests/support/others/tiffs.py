"""TIFF files of every order of bytes, width, packing, colour and turn."""
# ruff: noqa: E501 - a row a case

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from support.others.dicom_streams import luma, tinted
from support.others.picture import Case, stored, truth
from support.others.pictures import held, saved, turned


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
    return list(tiffs())

"""Our way of reading PNG beside Pillow's own, and packages' quick ways beside the slow ones that they stand for."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from sfumato_common import imaging
from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.imaging import decode_png, decode_pngs, encode_png, pixel_hash
from sfumato_common.package.manifest import ManifestImage, parse_entry
from sfumato_common.study.words import GuaranteeLevel

FORMS = {"grey": ((16, 16), np.uint8), "deep": ((16, 16), np.uint16), "colour": ((16, 16, 3), np.uint8)}


def noise(form: str, seed: int = 0) -> Any:
    shape, dtype = FORMS[form]
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filtered(form: str, filters: list[int], seed: int = 0) -> bytes:
    """A PNG whose rows are noise that was "filtered" as stated: what it shows is for a decoder to find out."""
    width = 16 * (3 if form == "colour" else np.dtype(FORMS[form][1]).itemsize)
    rows = np.random.default_rng(seed).integers(0, 256, (16, width), dtype=np.uint8)
    raw = b"".join(bytes([kind]) + row.tobytes() for kind, row in zip(filters, rows, strict=True))
    header = struct.pack(">IIBBBBB", 16, 16, 16 if form == "deep" else 8, 2 if form == "colour" else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def by_pillow(png: bytes) -> Any:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("filters", [[kind] * 16 for kind in range(5)] + [[4, 3, 2, 1, 0, 2, 4, 1] * 2])
def test_every_filter_is_undone_as_pillow_undoes_it_alone_and_among_others(form: str, filters: list[int]) -> None:
    """Also the first row, above which there is nothing, and not the picture before."""
    pngs = [encode_png(noise(form)), filtered(form, filters, 1), filtered(form, filters[::-1], 2)]
    for png, one, among in zip(pngs, map(decode_png, pngs), decode_pngs(pngs), strict=True):
        wanted = by_pillow(png)
        assert np.array_equal(one, wanted) and np.array_equal(among, wanted)
        assert one.dtype == among.dtype == wanted.dtype == FORMS[form][1]
        plain = np.ascontiguousarray(wanted).astype(f"<u{wanted.itemsize}").tobytes()
        assert pixel_hash(one) == pixel_hash(among) == hashlib.sha256(plain).hexdigest()


def test_an_unknown_filter_is_refused_wherever_it_stands() -> None:
    good = encode_png(noise("grey"))
    for place in (0, 7, 15):
        bad = filtered("grey", [5 if row == place else 0 for row in range(16)])
        for pngs in ([bad], [bad, good], [good, bad]):
            with pytest.raises(VerificationError):
                decode_pngs(pngs)


def test_pictures_of_different_forms_are_not_decoded_together() -> None:
    for other in (encode_png(noise("deep")), encode_png(noise("colour")), encode_png(np.zeros((8, 8), np.uint8))):
        with pytest.raises(VerificationError, match="one size and depth"):
            decode_pngs([encode_png(noise("grey")), other])


@pytest.mark.parametrize("level", get_args(GuaranteeLevel))
def test_an_entrys_line_is_its_canonical_json(level: GuaranteeLevel) -> None:
    for name, word in (("0" * 16, "a"), ("f" * 64, "z9-" + "-" * 29)):
        said = {"name": name, "label": word, "model": word, "method": word, "guarantee": level}
        entry = ManifestImage(**said, sha256="0" * 64, pixel_sha256="f" * 64)
        assert entry.line == canonical_json(entry.model_dump()) and parse_entry(entry.line) == entry


@pytest.mark.parametrize(
    "change",
    [
        (b'"label":"a"', b'"label":"a","label":"a"'),
        (b'"label":"a"', b'"label":"\\u0061"'),
        (b'"label":"a"', b'"label": "a"'),
        (b'"label":"a"', b'"label":"a\\n"'),
        (b'"label":"a"', b'"label":"a\\"b"'),
        (b'"label":"a"', b'"extra":1,"label":"a"'),
        (b'{"guarantee"', b' {"guarantee"'),
    ],
)
def test_another_spelling_of_an_entry_is_refused(change: tuple[bytes, bytes]) -> None:
    said = {"name": "0" * 16, "label": "a", "model": "gan", "method": "dp-sampling", "guarantee": "formal"}
    line = ManifestImage(**said, sha256="0" * 64, pixel_sha256="f" * 64).line
    assert parse_entry(line)
    with pytest.raises(VerificationError):
        parse_entry(line.replace(*change))


def _by_zlib(compressed: bytes, expected: int) -> bytes | None:
    """What zlib makes of a stream, by the rule of `_unpack`; None where it takes none."""
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(compressed, expected + 1)
    except zlib.error:
        return None
    return rows if len(rows) == expected and unpacker.eof and not unpacker.unused_data else None


def _by_ours(compressed: bytes, expected: int) -> bytes | None:
    try:
        return imaging._unpack(compressed, expected)
    except VerificationError:
        return None


@pytest.mark.parametrize("size", [1, 28, 90])
def test_the_quick_unpacker_takes_what_zlib_takes_and_nothing_else(size: int) -> None:
    """Streams of every level and kind, cut off, lengthened, or with a bit turned: one verdict, and the same rows."""
    rng = np.random.default_rng(size)
    for kind in range(12):
        rows = rng.integers(0, (2, 16, 256)[kind % 3], size * (size + 1), dtype=np.uint8).tobytes()
        packer = zlib.compressobj(kind % 10, zlib.DEFLATED, 15 - kind % 7, strategy=kind % 5)
        stream = packer.compress(rows) + packer.flush()
        assert _by_ours(stream, len(rows)) == rows
        for _ in range(60):
            turned = bytearray(stream)
            turned[rng.integers(len(turned))] ^= 1 << int(rng.integers(8))
            for changed in (bytes(turned), stream[: rng.integers(len(stream))], stream + rng.bytes(3)):
                found = _by_ours(changed, len(rows))
                assert found == _by_zlib(changed, len(rows))


def test_rows_that_are_packed_by_nobody_are_a_stream_of_zlib() -> None:
    for length in (0, 1, 65_535, 65_536, 200_000):
        rows = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()
        assert length == 0 or zlib.decompress(imaging._stored(rows)) == rows

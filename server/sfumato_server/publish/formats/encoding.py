"""DICOM files of one kind by the hundred thousand (PS3.10 7.1; PS3.5 7.1.2, Explicit VR Little Endian).

A dataset that pydicom encoded once is kept as pieces; what differs from object to object is encoded between them. The
result is what pydicom writes for the whole dataset, byte by byte, which a test holds.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

_LONG = ("OB", "OW")
_GROUP_LENGTH, _META_INSTANCE, _INSTANCE, _PIXELS = 0x00020000, 0x00020003, 0x00080018, 0x7FE00010
_START = bytes(128) + b"DICM"


class Pieces:
    """A dataset's file as bytes that stay and elements, by tag, that are said for each object."""

    def __init__(self, dataset: Any, changing: Mapping[int, str]) -> None:
        """`changing` are the tags of elements that each object says for itself, and their value representations."""
        self._vr = {**changing, _META_INSTANCE: "UI"}
        self._meta = self._split(dataset.file_meta, leaving=(_GROUP_LENGTH,))
        self._body = self._split(dataset)

    def _split(self, dataset: Any, leaving: tuple[int, ...] = ()) -> list[bytes | int]:
        pieces: list[bytes | int] = []
        tags = {int(element.tag) for element in dataset} | {tag for tag in self._vr if _is_meta(tag) == bool(leaving)}
        for tag in sorted(tags.difference(leaving)):
            pieces.append(tag if tag in self._vr else _encoded(dataset[tag]))
        return pieces

    def file(self, said: Mapping[int, bytes]) -> bytes:
        """The whole file of an object that says these values."""
        values = {**said, _META_INSTANCE: said[_INSTANCE]}
        meta, body = (b"".join(self._joined(pieces, values)) for pieces in (self._meta, self._body))
        return _START + element(_GROUP_LENGTH, "UL", struct.pack("<I", len(meta))) + meta + body

    def _joined(self, pieces: list[bytes | int], values: Mapping[int, bytes]) -> list[bytes]:
        return [
            piece if isinstance(piece, bytes) else element(piece, self._vr[piece], values[piece]) for piece in pieces
        ]


def _is_meta(tag: int) -> bool:
    return tag >> 16 == 2


def _encoded(element_: Any) -> bytes:
    """One element, as pydicom encodes it, sequences and all."""
    from pydicom.dataset import Dataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    own = Dataset()
    own[element_.tag] = element_
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, own)
    return bytes(stream.getvalue())


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element whose value is encoded already: padded to an even length, by NUL where PS3.5 6.2 says so."""
    if len(value) % 2:
        value += b"\0" if vr in ("UI", *_LONG) else b" "
    where = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode("ascii")
    length = struct.pack("<HI", 0, len(value)) if vr in _LONG else struct.pack("<H", len(value))
    return where + length + value

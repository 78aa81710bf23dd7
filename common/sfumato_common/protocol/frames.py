"""Frames between `sfumato simulate` and its workers: a header and arrays, over a pipe of this machine.

A frame is a length of eight bytes and safetensors, whose metadata hold the header as JSON. Nothing in it is executable.
Both ends are processes of one user: what comes is not held against a schema here, but where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import load, save

from sfumato_common.types import AnyArray, Arrays

_LENGTH_BYTES = 8
_HEADER = "header"
Frame = tuple[dict[str, Any], dict[str, AnyArray]]


def pack_frame(header: Mapping[str, Any], arrays: Arrays) -> bytes:
    """One frame without its length."""
    whole = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    return save(whole, metadata={_HEADER: json.dumps(header)})


def unpack_frame(data: bytes) -> Frame:
    """Inverse of `pack_frame`."""
    # safetensors: eight bytes of length, then a JSON object of which `__metadata__` is ours
    end = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(json.loads(data[8:end])["__metadata__"][_HEADER])
    return header, load(data)


def write_frame(stream: BinaryIO, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Send one frame. Raises OSError when the other end is gone."""
    write_bytes(stream, pack_frame(header, arrays))


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame; None when the other end is gone."""
    data = read_bytes(stream)
    return unpack_frame(data) if data else None


def write_bytes(stream: BinaryIO, frame: bytes) -> None:
    """Send a frame that is packed. Raises OSError when the other end is gone."""
    stream.write(len(frame).to_bytes(_LENGTH_BYTES, "little"))
    stream.write(frame)
    stream.flush()


def read_bytes(stream: BinaryIO) -> bytes:
    """The next frame, packed; nothing when the other end is gone."""
    length = _exactly(stream, _LENGTH_BYTES)
    return length and _exactly(stream, int.from_bytes(length, "little"))


def _exactly(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes; nothing where the stream ends before."""
    parts: list[bytes] = []
    while count and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"" if count else b"".join(parts)

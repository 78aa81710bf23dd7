"""Layers of a recorded connection: the bytes as written, and all that is packed in them, each to be scanned by itself.

HTTP/1.1 requests, HTTP/2 streams, gRPC and Flower messages, Flower's objects with their arrays put together from
chunks, release packages, PNG pixels, .npy arrays; and wherever they stand: ZIP, gzip, zlib, hexadecimal and base64.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import h11
import numpy as np
import numpy.typing as npt
from flwr.proto.message_pb2 import PushObjectRequest
from google.protobuf.message import DecodeError
from PIL import Image

from sfumato_common.protocol import intake_pb2
from sfumato_common.protocol.pack import unpack
from support.traffic.http2 import grpc_messages, streams
from support.traffic.relay import Connection

_UPLOAD = "/sfumato.intake.v1.Intake/Upload"
_DEEPEST = 4
_LARGEST = 1 << 28
_HEX = re.compile(rb"[0-9A-Fa-f]{16,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}")
_ZLIB = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
# between decoded pieces: nothing is found across them
_APART = b"\xff\x00\xff"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
Kind = Literal["bytes", "text", "message", "pixels"]


@dataclass(frozen=True, eq=False)
class Layer:
    """Bytes with a name that says how they were reached; `message` is a protocol buffer, `array` what an array holds.

    Numbers are not looked for in `pixels`: grey values that run smoothly spell digits now and then.
    """

    name: str
    data: bytes
    kind: Kind = "bytes"
    array: npt.NDArray[Any] | None = None


def layers(connection: Connection, name: str) -> list[Layer]:
    """All layers of what a site wrote on one connection. Raises ValueError when a byte of it is not understood."""
    sent = bytes(connection.sent)
    found = [Layer(name, sent), Layer(f"{name}/certificate", connection.peer)]
    if sent and connection.alpn == "h2":
        found += _http2(sent, name)
    elif sent:
        found += _http1(sent, name)
    return [deeper for layer in found for deeper in unfold(layer)]


def _http1(sent: bytes, name: str) -> Iterator[Layer]:
    """Requests of an HTTP/1.1 connection, and Flower's objects in their bodies."""
    objects: dict[str, bytes] = {}
    for number, (head, target, body) in enumerate(_requests(sent)):
        where = f"{name}/request {number} {target}"
        yield Layer(f"{where}/head", head, "text")
        yield Layer(where, body, "message")
        if target.endswith("/push-object"):
            pushed = PushObjectRequest.FromString(body)
            objects[pushed.object_id] = pushed.object_content
    yield from flower_objects(objects, name)


def _requests(sent: bytes) -> Iterator[tuple[bytes, str, bytes]]:
    """(head without its framing, target, body) of every request; the parser is h11's, in the server's role."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(sent)
    while True:
        event = server.next_event()
        if event is h11.NEED_DATA:
            if server.trailing_data[0]:
                raise ValueError("an HTTP/1.1 connection ends within a request's head")
            return
        assert isinstance(event, h11.Request), event
        body = bytearray()
        while isinstance(part := server.next_event(), h11.Data):
            body += part.data
        # a length says nothing that the body beside it does not say
        kept = [(key, value) for key, value in event.headers.raw_items() if key.lower() != b"content-length"]
        head = b"\r\n".join([b"%s %s" % (event.method, event.target), *(b"%s: %s" % pair for pair in kept)])
        coding = dict(event.headers).get(b"content-encoding", b"")
        yield head, event.target.decode("latin-1"), _decoded(bytes(body), coding)
        if not isinstance(part, h11.EndOfMessage):
            return  # the connection was cut within a body, which is yielded as far as it came
        server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        server.send(h11.EndOfMessage())
        server.start_next_cycle()


def _decoded(body: bytes, coding: bytes) -> bytes:
    if coding in (b"", b"identity"):
        return body
    if coding not in (b"gzip", b"deflate"):
        raise ValueError(f"a body in the unknown coding {coding!r}")
    return zlib.decompress(body, 47)


def flower_objects(objects: dict[str, bytes], name: str) -> Iterator[Layer]:
    """Flower's content-addressed objects by id: each body, and each array put together from its chunks."""
    for identifier, content in objects.items():
        head, _, body = content.partition(b"\0")
        kind, children, length = head.decode().split(" ")
        if int(length) != len(body):
            raise ValueError("a Flower object states another length than it has")
        where = f"{name}/{kind} {identifier[:8]}"
        yield Layer(where, body, "message" if kind in ("Message", "ConfigRecord") else "bytes")
        if kind == "Array":
            chunks = [objects.get(child, b"").partition(b"\0")[2] for child in children.split(",")]
            numbers = json.loads(body)["arraychunk_ids"]
            joined = b"".join(chunks[number] for number in numbers)
            yield Layer(f"{where}/joined", joined)
            yield from _pack(joined, where)
        else:
            yield from _pack(body, where)  # whole in one chunk, which may come on another connection than its array


def _pack(data: bytes, name: str) -> Iterator[Layer]:
    try:
        arrays = unpack(data)
    except (ValueError, KeyError, TypeError):
        return  # another array, or one that was cut short: its bytes are a layer already
    for key, values in arrays.items():
        yield Layer(f"{name}/packed {key}/values", values.tobytes(), array=values)


def _http2(sent: bytes, name: str) -> Iterator[Layer]:
    """Streams of an HTTP/2 connection: header fields, gRPC messages, and the package that the intake's chunks make."""
    for number, stream in streams(sent).items():
        path = stream.header(b":path").decode("latin-1")
        where = f"{name}/stream {number} {path}"
        yield Layer(f"{where}/head", b"\r\n".join(b"%s: %s" % pair for pair in stream.headers), "text")
        yield Layer(f"{where}/data", bytes(stream.data))
        messages = grpc_messages(stream)
        for place, message in enumerate(messages):
            yield Layer(f"{where}/message {place}", message, "message")
        if path == _UPLOAD:
            yield Layer(f"{where}/package", b"".join(intake_pb2.Chunk.FromString(item).data for item in messages))


def unfold(layer: Layer, depth: int = 0) -> Iterator[Layer]:
    """The layer and everything packed in it, down to `_DEEPEST` wrappings."""
    yield layer
    if depth < _DEEPEST:
        for inner in _packed(layer):
            yield from unfold(inner, depth + 1)


def _packed(layer: Layer) -> Iterator[Layer]:
    data, name = layer.data, layer.name
    yield from _archives(data, name)
    for match in re.finditer(rb"\x89PNG\r\n\x1a\n", data):
        yield from _picture(data[match.start() :], f"{name}/png at {match.start()}")
    for match in re.finditer(rb"\x93NUMPY", data):
        yield from _numpy(data[match.start() :], f"{name}/npy at {match.start()}")
    for match in _ZLIB.finditer(data):
        inflated = _inflate(data[match.start() :])
        if len(inflated) >= 16:
            kind: Kind = "pixels" if data[: match.start()].endswith(b"IDAT") else "bytes"
            yield Layer(f"{name}/inflated at {match.start()}", inflated, kind)
    for what, pieces in (("hex", _hex(data)), ("base64", _base64(data))):
        if joined := _APART.join(pieces):
            yield Layer(f"{name}/{what}", joined)


def _hex(data: bytes) -> list[bytes]:
    """What each run of hexadecimal digits says, from its first digit and from its second."""
    runs = [match[0][shift:].decode() for match in _HEX.finditer(data) for shift in (0, 1)]
    return [bytes.fromhex(digits[: len(digits) & ~1]) for digits in runs]


def _base64(data: bytes) -> list[bytes]:
    """What each run of base64 digits (RFC 4648, either alphabet) says, in all four alignments."""
    runs = [match[0][shift:].translate(_URL_SAFE) for match in _BASE64.finditer(data) for shift in range(4)]
    # a last group that is cut short still says a byte or two
    return [base64.b64decode(digits + b"A" * (-len(digits) % 4)) for digits in runs]


def _archives(data: bytes, name: str) -> Iterator[Layer]:
    """Members of a ZIP file, wherever in the data it begins."""
    if b"PK\x03\x04" not in data or b"PK\x05\x06" not in data:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.file_size > _LARGEST:
                    raise ValueError("a ZIP member is too large to be scanned")
                kind: Kind = "text" if entry.filename.endswith(".json") else "bytes"
                yield Layer(f"{name}/zip {entry.filename}", archive.read(entry), kind)
    except zipfile.BadZipFile:
        return  # the marks stand there by chance, or in a part of a package whose whole is another layer


def _picture(data: bytes, name: str) -> Iterator[Layer]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            yield Layer(f"{name}/pixels", np.asarray(picture).tobytes(), "pixels")
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error):
        return  # cut short: its compressed part is inflated by itself


def _numpy(data: bytes, name: str) -> Iterator[Layer]:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError):
        return
    yield Layer(f"{name}/values", values.tobytes(), array=values)


def _inflate(data: bytes) -> bytes:
    """As much of a gzip or zlib stream as can be read."""
    unpacker = zlib.decompressobj(47)
    try:
        return unpacker.decompress(data, _LARGEST)
    except zlib.error:
        return b""


def fields(message: bytes, start: int = 0) -> Iterator[tuple[int | float | bytes, int]]:
    """(value, offset) of every scalar in a protocol buffer of any type, nested ones too (protobuf.dev, "Encoding").

    An integer comes as it stands and in the zigzag form of `sint` fields, a floating-point number when it is whole.
    What does not parse as a message is one leaf of bytes.
    """
    found: list[tuple[int | float | bytes, int]] = []
    at = 0
    try:
        while at < len(message):
            key, at = _varint(message, at)
            if key >> 3 == 0:
                raise DecodeError
            begin = at
            if key & 7 == 0:
                value, at = _varint(message, at)
                found += [(value, start + begin), (value >> 1 if not value & 1 else -(value >> 1) - 1, start + begin)]
            elif key & 7 in (1, 5):
                at += 8 if key & 7 == 1 else 4
                found += [(number, start + begin) for number in _fixed(message[begin:at])]
            elif key & 7 == 2:
                length, begin = _varint(message, at)
                at = begin + length
                if at > len(message):
                    raise DecodeError
                found += fields(message[begin:at], start + begin)
            else:
                raise DecodeError
    except (DecodeError, IndexError, struct.error):
        found = []
    yield from [*found, (message, start)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise DecodeError


def _fixed(data: bytes) -> list[int | float]:
    """An integer and a floating-point reading of 4 or 8 bytes."""
    whole = int.from_bytes(data, "little")
    (number,) = struct.unpack("<d" if len(data) == 8 else "<f", data)
    return [whole, number] if math.isfinite(number) and number.is_integer() else [whole]

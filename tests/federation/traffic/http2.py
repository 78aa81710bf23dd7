"""What a client wrote on an HTTP/2 connection (RFC 9113), and the gRPC messages in it, put together again."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field

from traffic.hpack import Decoder, Field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _CONTINUATION = 0x0, 0x1, 0x9
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20


@dataclass
class Stream:
    """One request: header fields (trailers behind them) and the payloads of its DATA frames, joined."""

    headers: list[Field] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)

    def header(self, name: bytes) -> bytes:
        """The first value of a header field, or nothing."""
        return next((value for key, value in self.headers if key == name), b"")


def streams(sent: bytes) -> dict[int, Stream]:
    """Streams by number from all that a client wrote. Raises ValueError or IndexError unless every byte is accounted for.

    A last frame that was cut off with the connection is taken as far as it came.
    """
    if not sent.startswith(PREFACE):
        raise ValueError("no HTTP/2 client preface")
    found: dict[int, Stream] = {}
    decoder, block, at = Decoder(), b"", len(PREFACE)
    while at < len(sent):
        length, kind, flags = int.from_bytes(sent[at : at + 3], "big"), sent[at + 3], sent[at + 4]
        number = int.from_bytes(sent[at + 5 : at + 9], "big") & 0x7FFFFFFF
        payload = sent[at + 9 : at + 9 + length]
        at += 9 + length
        if kind not in (_DATA, _HEADERS, _CONTINUATION):
            continue  # settings, pings and the like: short, and whole in the raw bytes
        stream = found.setdefault(number, Stream())
        body = payload if kind == _CONTINUATION else _unpadded(payload, flags, kind)
        if kind == _DATA:
            stream.data += body
            continue
        block += body
        if flags & _END_HEADERS:
            stream.headers += decoder.decode(block)
            block = b""
    return found


def _unpadded(payload: bytes, flags: int, kind: int) -> bytes:
    start = 1 if flags & _PADDED else 0
    end = len(payload) - (payload[0] if start else 0)
    if kind == _HEADERS and flags & _PRIORITY:
        start += 5
    return payload[start:end]


def grpc_messages(stream: Stream) -> list[bytes]:
    """Length-prefixed messages of a gRPC request (gRPC over HTTP2), uncompressed; a cut last one as far as it came."""
    found, data, at = [], bytes(stream.data), 0
    while at + 5 <= len(data):
        compressed, length = data[at], int.from_bytes(data[at + 1 : at + 5], "big")
        message = data[at + 5 : at + 5 + length]
        at += 5 + length
        if compressed:
            coding = stream.header(b"grpc-encoding")
            message = gzip.decompress(message) if coding == b"gzip" else zlib.decompress(message)
        found.append(message)
    return found

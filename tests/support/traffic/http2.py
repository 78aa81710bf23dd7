"""What a client wrote on an HTTP/2 connection (RFC 9113), and the gRPC messages in it, put together again."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field

from hpack import Decoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER_BYTES = 9


@dataclass
class Stream:
    """One request: header fields (trailers behind them) and the payloads of its DATA frames, joined."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)

    def header(self, name: bytes) -> bytes:
        """The first value of a header field, or nothing."""
        return next((value for key, value in self.headers if key == name), b"")


def streams(sent: bytes) -> dict[int, Stream]:
    """Streams by number from all that a client wrote. Raises ValueError when it is no HTTP/2.

    The library raises for malformed frames and header blocks. A last frame that was cut off with the connection is left
    to the raw bytes.
    """
    if not sent.startswith(PREFACE):
        raise ValueError("no HTTP/2 client preface")
    found: dict[int, Stream] = {}
    decoder, block, at, view = Decoder(), b"", len(PREFACE), memoryview(sent)
    while at + _HEADER_BYTES <= len(sent):
        frame, length = Frame.parse_frame_header(view[at : at + _HEADER_BYTES])
        body = view[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
        if len(body) < length:
            break
        frame.parse_body(body)
        at += _HEADER_BYTES + length
        if isinstance(frame, DataFrame):
            found.setdefault(frame.stream_id, Stream()).data += frame.data
        elif isinstance(frame, HeadersFrame | ContinuationFrame):
            block += frame.data
            if "END_HEADERS" in frame.flags:
                # the dynamic table belongs to the connection: blocks are read in the order in which they came
                found.setdefault(frame.stream_id, Stream()).headers += decoder.decode(block, raw=True)
                block = b""
    return found


def grpc_messages(stream: Stream) -> list[bytes]:
    """Length-prefixed messages of a gRPC request (gRPC over HTTP2), uncompressed; a cut last one as far as it came.

    Raises ValueError for what is no such message.
    """
    found, data, at = [], bytes(stream.data), 0
    while at + 5 <= len(data):
        compressed, length = data[at], int.from_bytes(data[at + 1 : at + 5], "big")
        message = data[at + 5 : at + 5 + length]
        at += 5 + length
        if compressed > 1:
            raise ValueError("no gRPC message: its first byte is neither 0 nor 1")
        if compressed:
            coding = stream.header(b"grpc-encoding")
            message = gzip.decompress(message) if coding == b"gzip" else zlib.decompress(message)
        found.append(message)
    return found

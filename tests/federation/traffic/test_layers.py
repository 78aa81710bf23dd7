"""What a client wrote is put together again before it is scanned: requests, HTTP/2 streams, gRPC, Flower's objects."""

from __future__ import annotations

import struct
import zlib
from unittest.mock import patch

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame
from support.traffic.http2 import PREFACE, streams
from support.traffic.layers import flower_objects, layers
from support.traffic.relay import Connection
from support.traffic.toy import COUNT, SECRET, hits_on

from sfumato_common.protocol.flower import encode
from sfumato_common.protocol.messages import PROTOCOL, Reply


def http1(body, target="/v1/fleet/push-object", extra=b""):
    head = f"POST {target} HTTP/1.1\r\nHost: coordinator\r\nContent-Length: {len(body)}\r\n".encode()
    return head + extra + b"\r\n" + body


def pushed(item):
    """Flower's push of an object and all objects in it, as a client writes it."""
    every = get_all_nested_objects(item)
    return b"".join(
        http1(PushObjectRequest(object_id=name, object_content=part.deflate()).SerializeToString())
        for name, part in every.items()
    )


def h2(frames):
    return PREFACE + b"".join(frame.serialize() for frame in frames)


def request(stream, encoder, *pairs, first=40):
    """A header block in a HEADERS and a CONTINUATION frame."""
    block = encoder.encode([(":method", "POST"), (":path", "/s/Upload"), *pairs])
    return [HeadersFrame(stream, block[:first]), ContinuationFrame(stream, block[first:], flags=["END_HEADERS"])]


def test_a_canary_across_http2_frames_and_streams_is_found(scanner):
    encoder, body = Encoder(), b"\0" + struct.pack(">I", len(SECRET)) + SECRET.encode()
    begun = [*request(1, encoder), *request(3, encoder)]
    data = [DataFrame(1, body[:12]), DataFrame(3, b"\0\0\0\0\0"), DataFrame(1, body[12:], flags=["END_STREAM"])]
    padded = DataFrame(5, b"\0\0\0\0\0", flags=["PADDED"], pad_length=7)
    sent = h2([*begun, *data, *request(5, encoder), padded])
    assert SECRET.encode() not in sent
    assert len(streams(sent)[5].data) == 5
    with pytest.raises(Exception, match="preface"):
        streams(b"\0" + sent)
    assert hits_on(scanner, sent, "h2") == {"name"}


def test_a_canary_in_a_huffman_coded_header_field_is_found(scanner):
    encoder = Encoder()
    first = request(1, encoder, ("x-patient", SECRET), first=20)
    again = request(3, encoder, ("x-patient", SECRET), first=2)  # an index into the dynamic table
    sent = h2([*first, *again])
    assert SECRET.encode() not in sent
    assert dict(streams(sent)[3].headers)[b"x-patient"] == SECRET.encode()
    assert hits_on(scanner, sent, "h2") == {"name"}


def test_compressed_grpc_messages_are_read(scanner):
    message = zlib.compress(SECRET.encode())
    data = DataFrame(1, b"\1" + struct.pack(">I", len(message)) + message)
    assert hits_on(scanner, h2([*request(1, Encoder(), ("grpc-encoding", "deflate")), data]), "h2") == {"name"}


def test_requests_of_one_connection_are_taken_apart_and_a_cut_one_is_read_as_far_as_it_came(scanner):
    text = b"\0" + SECRET.encode()
    packed = http1(zlib.compress(text), extra=b"Content-Encoding: deflate\r\n", target="/other")
    chunked = b"POST /a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"8\r\n\0Quartzb\r\nd\r\nrine^Ottoline\r\n0\r\n\r\n"
    cut = http1(text + b"more", target="/other")[:-4]
    for last in (packed, chunked, cut):
        assert hits_on(scanner, http1(b"", target="/first") + last, "http/1.1") == {"name"}
    with pytest.raises(Exception, match=r"illegal|ends within"):
        hits_on(scanner, http1(b"", target="/first") + b"\x16\x03\x01 no HTTP", "http/1.1")


def test_a_canary_across_the_chunks_of_a_flower_array_is_found(scanner, images):
    values = np.full(64, 7, np.uint8)
    values[16:48] = images[1].ravel()[224:256]
    # the size of a chunk is Flower's constant, 5 MiB; here the first one ends within the canary
    with patch("flwr.app.message.array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 128 + 32):
        sent = pushed(RecordDict({"arrays": ArrayRecord({"w": Array(values)})}))
    assert values.tobytes()[16:48] not in sent
    assert hits_on(scanner, sent, "http/1.1") == {"uint8"}


def test_a_canary_in_one_array_of_a_pack_is_found_in_it(images):
    values = images[1].astype(np.float32) / 127.5 - 1
    reply = encode(Reply(PROTOCOL, "ok", "", "", {"a": np.zeros(3), "update": values}))
    found = layers(Connection("alder", "superlink", "http/1.1", b"", bytearray(pushed(reply))), "c")
    read = [layer for layer in found if layer.name.endswith("/packed update/values")]
    assert len(read) == 2, "of the array, and of the chunk that holds all of it"
    assert all(np.array_equal(layer.array, values) for layer in read)


def test_a_count_in_a_configuration_is_found_as_a_field(scanner):
    sent = pushed(RecordDict({"c": ConfigRecord({"n": COUNT})}))
    assert hits_on(scanner, sent, "http/1.1") == {"patients, as a field"}


def test_a_count_in_a_compressed_body_is_found_as_a_field(scanner):
    message = ConfigRecord({"n": COUNT}).deflate().partition(b"\0")[2]
    sent = http1(zlib.compress(message), extra=b"Content-Encoding: deflate\r\n", target="/other")
    assert hits_on(scanner, sent, "http/1.1") == {"patients, as a field"}


def test_a_flower_object_that_states_another_length_is_refused():
    with pytest.raises(ValueError, match="another length"):
        list(flower_objects({"a": b"ConfigRecord  163\0x"}, "c"))

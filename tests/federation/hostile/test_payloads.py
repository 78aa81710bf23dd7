"""Payloads made to break a reader: lying headers, pickles, archives, other byte orders, more than any plan allows."""

import io
import json
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from support.hospital import read

from sfumato_common.errors import VerificationError
from sfumato_common.protocol import flower
from sfumato_common.protocol.flower import decode_reply, decode_request, encode
from sfumato_common.protocol.messages import ARRAYS_KEY, CONFIG_KEY, PACK_KEY, PROTOCOL, Reply
from sfumato_common.protocol.pack import pack, unpack

NAME = "discriminator/head.bias"
STYPE = "sfumato.pack"


def packed(header, payload: bytes) -> bytes:
    """A pack with any header: text, or what JSON makes of a value."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def described(shape, dtype="F32", offsets=(0, 4), **more) -> dict:
    return {NAME: {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}


def saved(value, **how) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, **how)
    return stream.getvalue()


def archive(compression) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as bundle:
        bundle.writestr("a.npy", saved(np.zeros(1, np.float32)))
    return stream.getvalue()


class Bomb:
    def __reduce__(self):
        import os

        return os.mkdir, ("payload-ran",)


FOUR, EIGHT = bytes(4), bytes(8)
HONEST = described([1])
PAYLOADS = {
    "nothing": b"",
    "no header": b"hello",
    "text": b"hello, hospital, how are you",
    "a header longer than the message": (2**40).to_bytes(8, "little") + b"{}",
    "a header that claims 4 TiB": packed(described([2**40]), FOUR),
    "a header that claims 2 GiB": packed(described([2**29]), FOUR),
    "a header that claims 4 TiB twice": packed(described([2**40], offsets=(0, 2**42)), FOUR),
    "a header that claims less than there is": packed(HONEST, EIGHT),
    "a shape beyond 64 bits": packed(described([10**25]), FOUR),
    "a length of ten thousand digits": packed(b'{"w": {"dtype": "F32", "shape": [' + b"9" * 10000 + b"]}}", FOUR),
    "a negative shape": packed(described([-1], offsets=(0, -4)), FOUR),
    "two negative lengths": packed(described([-1, -1]), FOUR),
    "a length that is a truth value": packed(described([True]), FOUR),
    "a length that is no whole number": packed(described([1.0]), FOUR),
    "elements without size": packed(described([2**60], "V0", (0, 0)), b""),
    "big-endian": packed(described([1], ">f4"), FOUR),
    "a structure": packed(described([1], "[('a', '<f4')]"), FOUR),
    "text of fixed length": packed(described([1], "<U1"), FOUR),
    "complex": packed(described([1], "C64", (0, 8)), EIGHT),
    "half": packed(described([2], "F16"), FOUR),
    "truth values": packed(described([4], "BOOL"), FOUR),
    "dates": packed(described([1], "datetime64[s]", (0, 8)), EIGHT),
    "objects": packed(described([1], "object", (0, 8)), EIGHT),
    "a dtype that is no text": packed(described([1], ["F32"]), FOUR),
    "a pickle": pickle.dumps(Bomb()),
    "an .npy file": saved(np.zeros(1, np.float32)),
    "objects in an .npy file": saved(np.array([Bomb()], dtype=object), allow_pickle=True),
    "an archive": archive(zipfile.ZIP_STORED),
    "a compressed archive": archive(zipfile.ZIP_DEFLATED),
    "the beginning of an archive": b"PK\x03\x04garbage",
    "a header of nested brackets": packed(b"[" * 90000, FOUR),
    "a header that is no text": packed(b"\x00\xff", FOUR),
    "a header that calls": packed(b"__import__('os').mkdir('payload-ran')", FOUR),
    "a header without end": packed(b'{"w": {', FOUR),
    "a header of two megabytes": packed(json.dumps(HONEST).encode() + b" " * 2**21, FOUR),
    "a header that is a list": packed([HONEST], FOUR),
    "an entry that is nothing": packed({NAME: None}, FOUR),
    "an entry with more keys": packed(described([1], order="C"), FOUR),
    "metadata": packed({**HONEST, "__metadata__": {"a": "b"}}, FOUR),
    "two arrays in one place": packed({**HONEST, "other": HONEST[NAME]}, FOUR),
    "two arrays of one name": packed(json.dumps(HONEST).encode()[:-1] + b"," + json.dumps(HONEST).encode()[1:], FOUR),
    "a gap before an array": packed(described([1], offsets=(4, 8)), EIGHT),
    "an array that ends before it begins": packed(described([1], offsets=(4, 0)), FOUR),
}


def with_pack(request, data, dtype="uint8", shape=None, stype=STYPE):
    records = encode(request)
    shape = (len(data),) if shape is None else shape
    records[ARRAYS_KEY] = ArrayRecord({PACK_KEY: Array(dtype, shape, stype, data)})
    return records


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_payload_that_is_not_plain_numbers_is_refused_unread(midway, monkeypatch, tmp_path, kind):
    monkeypatch.chdir(tmp_path)
    records = with_pack(midway.asked["gan", 2], PAYLOADS[kind])
    before = midway.charges()
    tracemalloc.start()
    reply = read(midway.message(records))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    midway.refused(reply, "verification-failed", "arrays cannot be decoded")
    assert midway.charges() == before
    assert peak < 32 * 2**20, "nothing of the claimed size may be allocated"
    assert list(tmp_path.iterdir()) == [midway.home.root], "nothing in it ran"


@pytest.mark.parametrize(
    "announced",
    [
        {"dtype": "float32"},
        {"dtype": "object"},
        {"shape": (2,)},
        {"shape": ()},
        {"stype": "numpy.ndarray"},
        {"stype": ""},
    ],
)
def test_a_pack_that_is_announced_as_something_else_is_refused(midway, announced):
    records = with_pack(midway.asked["gan", 2], pack(midway.asked["gan", 2].arrays), **announced)
    midway.refused(read(midway.message(records)), "verification-failed", "arrays cannot be decoded")


@pytest.mark.parametrize("names", [[], ["arrays"], [PACK_KEY, "more"], [NAME]])
def test_arrays_that_do_not_come_as_one_pack_are_refused(midway, names):
    records = encode(midway.asked["gan", 2])
    records[ARRAYS_KEY] = ArrayRecord({name: records[ARRAYS_KEY][PACK_KEY] for name in names})
    midway.refused(read(midway.message(records)), "verification-failed", "do not come as one pack")


def test_an_honest_pack_passes(midway):
    request = midway.asked["gan", 2]
    assert read(midway.message(with_pack(request, pack(request.arrays)))).status == "ok"


@pytest.mark.parametrize("value", [np.zeros(5, np.float32), np.ones((2, 3), np.float32), np.zeros((0, 4), np.uint16)])
def test_what_is_decoded_is_a_view_of_what_came(value):
    data = pack({"a": value, "b": np.arange(3)})
    plain = unpack(data)
    assert np.array_equal(plain["a"], value) and plain["a"].dtype == value.dtype and plain["a"].shape == value.shape
    assert np.array_equal(plain["b"], np.arange(3))
    assert not any(view.flags.owndata or view.flags.writeable for view in plain.values())


def test_the_size_of_a_message_is_looked_at_before_anything_is_decoded(midway, monkeypatch):
    records = encode(midway.asked["gan", 2])
    old = records[ARRAYS_KEY][PACK_KEY]
    size = len(old.data)
    monkeypatch.setattr(flower, "LARGEST_MESSAGE_BYTES", size)
    decode_request(records)
    # one byte more, which could not be decoded either: the size is what is complained about
    records[ARRAYS_KEY] = ArrayRecord({PACK_KEY: Array(old.dtype, old.shape, old.stype, b"x" + old.data)})
    before = midway.charges()
    midway.refused(read(midway.message(records)), "verification-failed", "larger than any plan allows")
    monkeypatch.undo()
    assert midway.charges() == before


def test_the_real_limit_is_far_above_an_honest_message_and_far_below_a_machine(midway):
    honest = sum(value.nbytes for value in midway.asked["make"].arrays.values())
    assert 100 * honest < flower.LARGEST_MESSAGE_BYTES <= 2**30


@pytest.mark.parametrize("kind", ["stage", "make", "utility", "hello"])
def test_beyond_the_plans_schema_nothing_is_copied(midway, monkeypatch, kind):
    stage, number = ("gan", 2) if kind == "stage" else ("", 0)
    big = np.zeros(2**24, np.float32)  # 64 MiB that no schema has
    request = midway.request("make" if kind == "hello" else kind, stage, number, {"big": big})
    records = encode(request)
    if kind == "hello":
        records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], "kind": "hello"})
    before = midway.charges()
    tracemalloc.start()
    reply = read(midway.message(records))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (reply.status, reply.code) == ("refused", "verification-failed")
    assert peak < big.nbytes / 2
    assert midway.charges() == before


def test_the_coordinator_reads_replies_as_strictly():
    records = encode(Reply(PROTOCOL, "ok", "", "", {"update": np.zeros(4, np.uint16)}))
    decode_reply(records)
    for data in PAYLOADS.values():
        records[ARRAYS_KEY] = ArrayRecord({PACK_KEY: Array("uint8", (len(data),), STYPE, data)})
        with pytest.raises(VerificationError, match="cannot be decoded"):
            decode_reply(records)

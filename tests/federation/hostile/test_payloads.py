"""Payloads made to break a reader: lying headers, pickles, archives, other byte orders, more than any plan allows."""

import io
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
from sfumato_common.protocol.messages import ARRAYS_KEY, CONFIG_KEY, PROTOCOL, Reply

NUMPY = "numpy.ndarray"
NAME = "discriminator/head.bias"


def npy(header: str, payload: bytes, version=(1, 0)) -> bytes:
    """An .npy file with any header text."""
    text = header.encode("latin1") + b"\n"
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text + payload


def described(shape, descr="'<f4'", order="False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


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


ONE = np.zeros(1, np.float32)
FOUR = bytes(4)
PAYLOADS = {
    "nothing": b"",
    "no magic": b"hello, hospital",
    "a header that claims 4 TiB": npy(described("(1099511627776,)"), FOUR),
    "a header that claims 2 GiB": npy(described("(536870912,)"), FOUR),
    "a header that claims less than there is": npy(described("(1,)"), bytes(8)),
    "a shape beyond 64 bits": npy(described("(10000000000000000000000000,)"), FOUR),
    "a negative shape": npy(described("(-1,)"), FOUR),
    "two negative lengths": npy(described("(-1, -1)"), FOUR),
    "a length that is a truth value": npy(described("(True,)"), FOUR),
    "elements without size": npy(described("(1152921504606846976,)", "'|V0'"), b""),
    "column-major": npy(described("(1,)", order="True"), FOUR),
    "big-endian": saved(ONE.astype(">f4")),
    "a structure": saved(np.zeros(1, [("a", "<f4")])),
    "text": saved(np.array(["x"])),
    "complex": saved(np.zeros(1, np.complex64)),
    "half": saved(np.zeros(2, np.float16)),
    "dates": saved(np.zeros(1, "datetime64[s]")),
    "objects": saved(np.array([Bomb()], dtype=object), allow_pickle=True),
    "a pickle": pickle.dumps(Bomb()),
    "an archive": archive(zipfile.ZIP_STORED),
    "a compressed archive": archive(zipfile.ZIP_DEFLATED),
    "the beginning of an archive": b"PK\x03\x04garbage",
    "version 2 of the format": npy(described("(1,)"), FOUR, (2, 0)),
    "version 9 of the format": npy(described("(1,)"), FOUR, (9, 0)),
    "a header of nested brackets": npy("(" * 9000, FOUR),
    "a header that is no text": npy("\x00\xff", FOUR),
    "a header that calls": npy("__import__('os').mkdir('payload-ran')", FOUR),
    "a header without end": b"\x93NUMPY\x01\x00\xff\xff{",
    "a header with more keys": npy(described("(1,)")[:-1] + "'extra': 1}", FOUR),
}


# what comes with those that describe themselves otherwise than as one float32
ANNOUNCED = {
    "a header that claims 4 TiB": {"shape": (2**40,)},
    "a header that claims 2 GiB": {"shape": (2**29,)},
    "a shape beyond 64 bits": {"shape": (10**25,)},
    "a negative shape": {"shape": (-1,)},
    "two negative lengths": {"shape": (-1, -1)},
    "a length that is a truth value": {"shape": (True,)},
    "elements without size": {"shape": (2**60,), "dtype": "|V0"},
    "big-endian": {"dtype": ">f4"},
    "a structure": {"dtype": "[('a', '<f4')]"},
    "text": {"dtype": "<U1"},
    "complex": {"dtype": "complex64"},
    "half": {"dtype": "float16", "shape": (2,)},
    "dates": {"dtype": "datetime64[s]"},
    "objects": {"dtype": "object"},
}


def with_payload(request, data, dtype="float32", shape=(1,), stype=NUMPY):
    records = encode(request)
    records[ARRAYS_KEY] = ArrayRecord({**records[ARRAYS_KEY], NAME: Array(dtype, shape, stype, data)})
    return records


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_payload_that_is_not_plain_numbers_is_refused_unread(midway, monkeypatch, tmp_path, kind):
    monkeypatch.chdir(tmp_path)
    records = with_payload(midway.asked["gan", 2], PAYLOADS[kind], **ANNOUNCED.get(kind, {}))
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
    [{"dtype": "float64"}, {"dtype": "object"}, {"shape": (2,)}, {"shape": ()}, {"stype": "torch"}, {"stype": ""}],
)
def test_a_payload_that_is_another_than_announced_is_refused(midway, announced):
    value = midway.asked["gan", 2].arrays[NAME]
    records = with_payload(midway.asked["gan", 2], saved(value), **{"shape": value.shape, **announced})
    midway.refused(read(midway.message(records)), "verification-failed", "arrays cannot be decoded")


def test_an_honest_payload_passes(midway):
    value = midway.asked["gan", 2].arrays[NAME]
    records = with_payload(midway.asked["gan", 2], saved(value), shape=value.shape)
    assert read(midway.message(records)).status == "ok"


@pytest.mark.parametrize("value", [np.zeros(5, np.float32), np.ones((2, 3), np.float32), np.zeros((0, 4), np.uint16)])
def test_what_is_decoded_is_a_view_of_what_came(value):
    data = saved(value)
    plain = flower._plain(Array(str(value.dtype), value.shape, NUMPY, data))
    assert np.array_equal(plain, value) and plain.dtype == value.dtype
    assert not plain.flags.owndata and not plain.flags.writeable


def test_the_size_of_a_message_is_looked_at_before_anything_is_decoded(midway, monkeypatch):
    records = encode(midway.asked["gan", 2])
    size = sum(len(array.data) for array in records[ARRAYS_KEY].values())
    monkeypatch.setattr(flower, "LARGEST_MESSAGE_BYTES", size)
    decode_request(records)
    # one byte more, which could not be decoded either: the size is what is complained about
    name = next(iter(records[ARRAYS_KEY]))
    old = records[ARRAYS_KEY][name]
    longer = Array(old.dtype, old.shape, old.stype, b"x" + old.data)
    records[ARRAYS_KEY] = ArrayRecord({**records[ARRAYS_KEY], name: longer})
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
    records[ARRAYS_KEY] = ArrayRecord({"update": Array("uint16", (4,), NUMPY, PAYLOADS["objects"])})
    with pytest.raises(VerificationError, match="cannot be decoded"):
        decode_reply(records)

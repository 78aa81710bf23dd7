"""The scan finds a canary in every form and wrapping that it is meant to, and nothing in 50 MB of random bytes."""

from __future__ import annotations

import base64
import io
import zipfile
import zlib

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from PIL import Image
from support.traffic.canaries import pixel_blocks
from support.traffic.layers import Layer, fields
from support.traffic.toy import COUNT, SECRET, found


@pytest.mark.parametrize("start", [0, 1, 250, 400])
def test_any_64_bytes_of_a_picture_are_found(scanner, images, start):
    # rows with anatomy in them: above and below them lies flat background, which is no canary
    run = images[1].tobytes()[96 + start : 160 + start]
    assert len(set(run)) > 24
    assert found(scanner, b"\x07" * 13 + run + b"\x07") == {"uint8"}


def test_pixels_are_found_in_every_number_format_and_along_columns(scanner, images):
    column = np.ascontiguousarray(images[0].T)[8:16]
    unit = column.astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert found(scanner, column.tobytes()) == {"uint8"}
    assert found(scanner, unit.tobytes()) == {"float32 -1..1"}
    assert found(scanner, unit.astype(np.float64).tobytes()) == {"float64 -1..1"}
    assert found(scanner, (column / np.float32(255)).astype(np.float16).tobytes()) == {"float16 0..1"}
    half = torch.from_numpy(unit).to(torch.bfloat16).view(torch.int16).numpy()
    assert found(scanner, half.tobytes()) == {"bfloat16 -1..1"}


def test_background_is_no_canary():
    assert sum(len(block) for _, block in pixel_blocks(np.full((2, 24, 24), 7, np.uint8))) == 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text.upper(),
        lambda text: text.decode().encode("utf-16-le"),
        lambda text: text.decode().encode("utf-16-be"),
        lambda text: text.replace(b"^", b"%5E"),
        lambda text: text.hex().upper().encode(),
        lambda text: b"f" + text.hex().encode(),
        lambda text: b"id=x" + base64.b64encode(b"12" + text),
        lambda text: base64.urlsafe_b64encode(b"\xff\xfe\xfd" + text),
        zlib.compress,
        lambda text: b"before" + zlib.compress(base64.b64encode(text)) + b"after",
    ],
)
def test_a_name_is_found_in_every_wrapping(scanner, wrap):
    assert {what.partition(" (")[0] for what in found(scanner, b"\0\1" + wrap(SECRET.encode()) + b"\2")} == {"name"}


def test_members_and_pixels_of_a_package_are_found(scanner, images):
    picture, package = io.BytesIO(), io.BytesIO()
    Image.fromarray(images[2]).save(picture, "PNG")
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("images/00.png", picture.getvalue())
    assert found(scanner, package.getvalue()) == {"uint8"}


def test_a_canary_across_the_shards_of_the_scan_is_found(scanner):
    start = (1 << 20) - 5
    assert found(scanner, b"\x80" * start + SECRET.encode() + b"\x80" * 99) == {"name"}


@pytest.mark.parametrize("text", ["for 163 patients.", '{"n": 163, "x": 1}', "patients=163&", "n: 163.0;", "(163)"])
def test_a_count_is_found_as_a_word(scanner, text):
    assert found(scanner, b"\0 a line of a log: " + text.encode() + b"\0") == {"patients, as text"}


@pytest.mark.parametrize(
    "text", ["1163", "163ab", "x163", "0.163", "163.5", "12:163", "a+163/b=", "content-length: 163\r\n"]
)
def test_digits_inside_something_else_are_no_count(scanner, text):
    assert found(scanner, b"\0 a line of a log: " + text.encode() + b"\0") == set()


def test_a_count_is_found_as_a_field_whatever_its_wire_type(scanner):
    for value in (COUNT, float(COUNT), str(COUNT), str(COUNT).encode()):
        message = ConfigRecord({"rounds": 4, "n": value}).deflate().partition(b"\0")[2]
        assert found(scanner, message, "message") == {"patients, as a field"}, value
    assert found(scanner, ConfigRecord({"n": 164, "m": 163.5}).deflate().partition(b"\0")[2], "message") == set()


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_a_count_is_found_as_an_element_of_an_array(scanner, dtype):
    stream = io.BytesIO()
    np.save(stream, np.array([[0.5, 3, COUNT]]).astype(dtype))
    assert found(scanner, stream.getvalue()) == {"patients, as an element"}


def test_a_length_that_gives_a_cohort_away_is_found(scanner):
    stream = io.BytesIO()
    np.save(stream, np.zeros((COUNT, 2), np.float32))
    assert found(scanner, stream.getvalue()) == {"patients, as text"}


def test_random_bytes_hold_no_canary(scanner):
    noise = np.random.default_rng(3).bytes(50 << 20)
    assert {hit.what for hit in scanner.scan(Layer("noise", noise))} == set()
    assert found(scanner, noise[: 1 << 20], "message") == set()
    assert found(scanner, noise[: 1 << 20].hex().encode()) == set()
    assert found(scanner, base64.encodebytes(noise[: 1 << 20])) == set()


def test_fields_of_nested_messages_come_with_their_places():
    inner = b"\x08\xa3\x01"  # field 1 = 163
    message = b"\x12" + bytes([len(inner)]) + inner
    assert (163, 3) in set(fields(message))

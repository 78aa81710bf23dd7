"""The message contract: what round-trips, and everything that is refused."""

from __future__ import annotations

import itertools
import string
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest

from sfumato_common.errors import VerificationError
from sfumato_common.protocol.answers import read_answers, write_answers
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request

HASH = "0123456789abcdef" * 4
ARRAYS = {"gan:generator/fc1.weight": np.zeros((2, 3), np.float32)}
REQUEST = {"protocol": PROTOCOL, "plan_hash": HASH, "kind": "stage", "stage": "gan", "round": 3}
REQUEST |= {"answered": "", "held": ""}
OK = {"protocol": PROTOCOL, "status": "ok", "code": "", "reference": ""}
REFUSED = {"protocol": PROTOCOL, "status": "refused", "code": "budget-exceeded", "reference": "00ff00ff00ff00ff"}


def test_request_and_reply_round_trip():
    request = Request.from_config(REQUEST, ARRAYS)
    assert request.to_config() == REQUEST
    assert request.arrays is ARRAYS
    for config, arrays in ((OK, ARRAYS), (REFUSED, {})):
        assert Reply.from_config(config, arrays).to_config() == config


def test_the_list_of_answers_has_one_spelling():
    assert write_answers(()) == "" and read_answers("") == frozenset()
    answers = {("gan", number) for number in (1, 2, 3, 7, 9, 10)} | {("formal", 1)}
    assert write_answers(answers) == "formal:1 gan:1-3,7,9-10"
    assert read_answers("formal:1 gan:1-3,7,9-10") == answers


def test_a_list_of_answers_that_is_short_as_a_text_is_not_long_as_a_set():
    """Seven thousand letters of a coordinator that would be seven million answers, and minutes of a site."""
    names = sorted("".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2))
    text = " ".join(f"{name}:0-9999" for name in names)
    assert len(text) < 8000
    began = time.process_time()
    with pytest.raises(VerificationError, match="malformed"):
        read_answers(text)
    assert time.process_time() - began < 5


def test_a_reply_has_no_room_for_anything_else():
    assert [item.name for item in fields(Reply)] == ["protocol", "status", "code", "reference", "arrays"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", PROTOCOL + 1),
        ("protocol", True),
        ("protocol", "1"),
        ("plan_hash", HASH[:-1]),
        ("plan_hash", HASH + "\n"),
        ("plan_hash", HASH.upper()),
        ("plan_hash", b"0" * 64),
        ("kind", "train"),
        ("kind", ["stage"]),
        ("stage", ""),
        ("stage", "../gan"),
        ("stage", "g" * 33),
        ("round", -1),
        ("round", 1001),
        ("round", 1.0),
        ("round", True),
        ("round", "1"),
        ("answered", 1),
        ("answered", "gan"),
        ("answered", "gan:2,1"),
        ("answered", "gan:1,2"),
        ("answered", "gan:1 "),
        ("answered", "spectral:1 gan:1"),
        ("answered", "gan:1-"),
    ],
)
def test_a_bad_request_field_is_refused(field, value):
    with pytest.raises(VerificationError):
        Request.from_config(REQUEST | {field: value}, ARRAYS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "done"),
        ("status", 0),
        ("code", ""),
        ("code", "Patient-Mueller"),
        ("code", "a" * 33),
        ("code", "data-error\n"),
        ("code", 7),
        ("reference", "0" * 17),
        ("reference", "xyz"),
        ("reference", "ab\n"),
        ("protocol", 0),
    ],
)
def test_a_bad_reply_field_is_refused(field, value):
    with pytest.raises(VerificationError) as caught:
        Reply.from_config(REFUSED | {field: value}, {})
    assert "Mueller" not in str(caught.value)


@pytest.mark.parametrize("extra", ["num_examples", "loss", "metrics", "arrays"])
def test_an_unknown_or_missing_field_is_refused(extra):
    with pytest.raises(VerificationError) as caught:
        Reply.from_config(OK | {extra: 1}, {})
    assert extra not in str(caught.value).split()
    with pytest.raises(VerificationError):
        Request.from_config({key: value for key, value in REQUEST.items() if key != "round"}, {})


def test_ok_carries_no_code_and_a_refusal_no_arrays():
    with pytest.raises(VerificationError):
        Reply.from_config(OK | {"code": "a"}, {})
    with pytest.raises(VerificationError):
        Reply.from_config(OK | {"reference": "ab"}, {})
    with pytest.raises(VerificationError):
        Reply.from_config(REFUSED, ARRAYS)


def test_only_a_stage_request_names_a_stage():
    with pytest.raises(VerificationError):
        Request.from_config(REQUEST | {"kind": "make"}, {})
    assert Request.from_config(REQUEST | {"kind": "make", "stage": "", "round": 0}, {}).stage == ""


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros(1)],
        {"w": [0.0]},
        {"w": np.array([{}], dtype=object)},
        {"Müller": np.zeros(1)},
        {"w" * 129: np.zeros(1)},
        {3: np.zeros(1)},
    ],
)
def test_arrays_must_be_plain_and_plainly_named(arrays):
    with pytest.raises(VerificationError):
        Reply.from_config(OK, arrays)


def test_records_import_neither_flower_nor_torch():
    code = "import sys, sfumato_common.protocol.messages; assert not {'flwr', 'torch'} & set(sys.modules), m"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

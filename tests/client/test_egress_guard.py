"""The outbound guard: nothing but the declared arrays leaves, and no text of an error."""

from __future__ import annotations

import stat

import numpy as np
import pytest

from sfumato_client.egress.guard import CODES, check_reply, log_locally, sanitise
from sfumato_common.errors import BudgetExceeded, DataError, EgressRefused
from sfumato_common.records import PROTOCOL, Reply
from sfumato_common.types import ArraySpec

SCHEMA = {"weight": ArraySpec("float32", (2, 3)), "bias": ArraySpec("float32", (3,))}


def good():
    return {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}


def check(arrays, *, reservation_present=True, largest_bytes=1000, schema=SCHEMA):
    check_reply(arrays, schema, reservation_present=reservation_present, largest_bytes=largest_bytes)


def test_the_declared_arrays_pass():
    check(good())


@pytest.mark.parametrize(
    "change",
    [
        {"patient Mueller": np.zeros(1, np.float32)},
        {"weight": np.ones((2, 3), np.float64)},
        {"weight": np.ones((2, 3), ">f4")},
        {"weight": np.ones((3, 2), np.float32)},
        {"weight": np.full((2, 3), np.nan, np.float32)},
        {"bias": np.array([0, np.inf, 0], np.float32)},
        {"bias": [0.0, 0.0, 0.0]},
        {"bias": np.ma.masked_array(np.zeros(3, np.float32), mask=[1, 0, 0])},
    ],
)
def test_anything_else_is_refused_and_not_quoted(change):
    with pytest.raises(EgressRefused) as caught:
        check(good() | change)
    assert "Mueller" not in str(caught.value)


def test_a_missing_array_is_refused():
    arrays = good()
    del arrays["bias"]
    with pytest.raises(EgressRefused):
        check(arrays)


def test_error_text_holds_no_values():
    arrays = good() | {"bias": np.array([1234.5, np.nan, 77], np.float32)}
    with pytest.raises(EgressRefused) as caught:
        check(arrays)
    assert not any(text in str(caught.value) for text in ("1234", "77", "nan"))


@pytest.mark.parametrize("present", [False, None, 1])
def test_no_reservation_no_reply(present):
    with pytest.raises(EgressRefused, match="reservation"):
        check(good(), reservation_present=present)


def test_size_limit_is_exact():
    check(good(), largest_bytes=36)
    with pytest.raises(EgressRefused, match="larger"):
        check(good(), largest_bytes=35)


def test_an_object_array_is_refused_even_when_declared():
    with pytest.raises(EgressRefused):
        check({"a": np.array([None])}, schema={"a": ArraySpec("object", (1,))})


def test_an_error_leaves_as_code_and_reference_only():
    code, reference = sanitise(BudgetExceeded("patient Mueller of /data/x"))
    assert code == "budget-exceeded"
    assert Reply(PROTOCOL, "refused", code, reference, {}).code == code
    assert sanitise(FileNotFoundError("/data/Mueller.dcm"))[0] == "failed"
    assert sanitise(KeyboardInterrupt())[0] == "failed"
    assert sanitise(DataError("x"))[1] != sanitise(DataError("x"))[1]


def test_a_code_cannot_smuggle_data():
    error = DataError("x")
    error.wire_code = "mueller"
    assert sanitise(error)[0] == "failed"

    class SneakyError(DataError):
        wire_code = "mueller"

    assert sanitise(SneakyError("x"))[0] == "failed"
    assert {"failed", "release-refused", "ledger-refused"} <= CODES


def test_the_whole_error_stays_in_the_site_for_its_user_alone(tmp_path):
    try:
        raise DataError("Mueller.dcm is broken")
    except DataError as error:
        log_locally(tmp_path, "00ff", error)
    file = tmp_path / "errors" / "00ff.txt"
    assert "Mueller.dcm is broken" in file.read_text()
    assert "test_egress_guard" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

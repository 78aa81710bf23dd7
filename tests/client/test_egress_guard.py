"""The outbound guard: nothing but the declared arrays leaves, and no text of an error."""

from __future__ import annotations

import dataclasses
import stat

import numpy as np
import pytest

from sfumato_client.egress import guard
from sfumato_client.egress.guard import CODES, deliver, log_locally, noised_reply, pending_reply, plain_reply, sanitise
from sfumato_client.egress.pace import Pace
from sfumato_client.ledger.approvals import approval
from sfumato_common.accounting.events import GaussianRelease, SampledGaussian, same_mechanisms
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import BudgetExceeded, DataError, EgressRefused, ReleaseRefused
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.sealed import Paid, Sealed, digest_of
from sfumato_common.protocol.messages import PROTOCOL, Reply
from sfumato_common.types import ArraySpec

SCHEMA = {"weight": ArraySpec("float32", (2, 3)), "bias": ArraySpec("float32", (3,))}


def good():
    return {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}


def check(arrays, *, schema=SCHEMA):
    return plain_reply(arrays, schema)


def test_the_declared_arrays_pass():
    reply = check(good())
    assert (reply.status, reply.code, reply.reference) == ("ok", "", "")
    assert reply.arrays.keys() == SCHEMA.keys()


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


def test_a_reply_beyond_the_size_of_any_is_refused(monkeypatch):
    monkeypatch.setattr(guard, "LARGEST_REPLY_BYTES", 36)
    check(good())
    monkeypatch.setattr(guard, "LARGEST_REPLY_BYTES", 35)
    with pytest.raises(EgressRefused, match="larger"):
        check(good())


UPDATED = {"update": ArraySpec("bfloat16", (256,), filled=200)}


@pytest.mark.parametrize(("place", "bits"), [(0, 0x7F80), (3, 0xFF80), (7, 0x7FC0), (200, 1), (255, 0x3F80)])
def test_an_update_that_is_not_finite_or_hides_something_in_its_padding_is_refused(place, bits):
    update = np.zeros(256, np.uint16)
    update[:200] = 0x3F80
    check({"update": update}, schema=UPDATED)
    update[place] = bits
    with pytest.raises(EgressRefused, match="not finite, or its padding"):
        check({"update": update}, schema=UPDATED)


EVENT = SampledGaussian(1.0, 0.1, 2)
UNIT = {"weight": ArraySpec("float32", (2, 3))}


def noised(steps=2, sigma=1.0, rate=0.1, binding="entry"):
    recorder = NoiseRecorder(SecureNoise(), binding)
    for _ in range(steps):
        value = recorder.sampled_gaussian(np.zeros((2, 3)), 1.0, sigma, rate)
    return recorder.seal_result({"weight": value.astype(np.float32)})


def test_what_was_noised_as_charged_leaves():
    assert noised_reply(noised(), UNIT, Paid((EVENT,), "entry")).status == "ok"


@pytest.mark.parametrize("charge", [None, True, "entry", (EVENT, "entry")])
def test_no_reservation_no_reply(charge):
    with pytest.raises(EgressRefused, match="reservation"):
        noised_reply(noised(), UNIT, charge)


@pytest.mark.parametrize("ran", [{"steps": 3}, {"steps": 1}, {"sigma": 0.5}, {"rate": 0.2}])
def test_a_mechanism_that_was_not_charged_does_not_leave(ran):
    with pytest.raises(EgressRefused, match="charged"):
        noised_reply(noised(**ran), UNIT, Paid((EVENT,), "entry"))


def test_noise_of_another_round_does_not_serve():
    with pytest.raises(EgressRefused, match="another reservation"):
        noised_reply(noised(binding="yesterday"), UNIT, Paid((EVENT,), "entry"))


def test_arrays_that_changed_after_the_noise_do_not_leave():
    altered = noised()
    altered.result["weight"][0, 0] = 7.0
    with pytest.raises(EgressRefused, match="sealed"):
        noised_reply(altered, UNIT, Paid((EVENT,), "entry"))
    arrays = {"weight": np.ones((2, 3), np.float32)}
    forged = Sealed(arrays, (EVENT,), "entry", digest_of(arrays), bytes(32))
    with pytest.raises(EgressRefused, match="sealed"):
        noised_reply(forged, UNIT, Paid((EVENT,), "entry"))
    with pytest.raises(EgressRefused, match="recorded"):
        noised_reply(arrays, UNIT, Paid((EVENT,), "entry"))


def test_what_no_mechanism_ran_for_does_not_leave():
    bare = NoiseRecorder(SecureNoise(), "entry").seal_result({"weight": np.ones((2, 3), np.float32)})
    with pytest.raises(EgressRefused, match="no mechanism ran"):
        noised_reply(bare, UNIT, Paid((EVENT,), "entry"))


def test_one_shot_releases_add_up_as_one():
    recorder = NoiseRecorder(SecureNoise(), "entry")
    recorder.gaussian(np.zeros(3), 0.6, 2.0 / 0.6)
    recorder.gaussian(np.zeros(3), 0.8, 2.0 / 0.8)
    assert same_mechanisms([GaussianRelease(2.0)], recorder.executed)
    paid = Paid((GaussianRelease(2.0),), "entry")
    assert noised_reply(recorder.seal_result({"weight": np.ones((2, 3), np.float32)}), UNIT, paid).status == "ok"
    with pytest.raises(EgressRefused, match="after the result was sealed"):
        recorder.sampled_gaussian(np.zeros(3), 1.0, 1.0, 0.1)
    more = NoiseRecorder(SecureNoise(), "entry")
    more.gaussian(np.zeros(3), 1.0, 2.0)
    more.sampled_gaussian(np.zeros(3), 1.0, 1.0, 0.1)
    with pytest.raises(EgressRefused, match="not the one"):
        noised_reply(more.seal_result({"weight": np.ones((2, 3), np.float32)}), UNIT, paid)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return create_identity(tmp_path_factory.mktemp("identity"), "alder")


def leave_for(package, hospital):
    return approval("ab" * 32, "formal", "gate", package, ["cd" * 32], hospital.sign_approval)


def test_packages_are_delivered_within_bounds(monkeypatch, hospital):
    sent, leave = [], leave_for(b"package", hospital)
    assert deliver(b"package", leave, hospital.signing_public, sent.append).arrays == {}
    monkeypatch.setattr(guard, "LARGEST_PACKAGE_BYTES", 6)
    for package in (b"", b"package"):
        with pytest.raises(EgressRefused, match="package"):
            deliver(package, leave, hospital.signing_public, sent.append)
    assert sent == [b"package"]


def test_nothing_is_delivered_but_what_this_site_approved(hospital, tmp_path):
    sent, leave = [], leave_for(b"package", hospital)
    with pytest.raises(ReleaseRefused, match="not the one that was approved"):
        deliver(b"another", leave, hospital.signing_public, sent.append)
    other = create_identity(tmp_path, "birch")
    for forged in (
        dataclasses.replace(leave, part="declared"),
        dataclasses.replace(leave, sets=("ef" * 32,)),
        dataclasses.replace(leave, plan_hash="00" * 32),
        leave_for(b"package", other),
    ):
        with pytest.raises(ReleaseRefused, match="was not signed by this site"):
            deliver(b"package", forged, hospital.signing_public, sent.append)
    assert sent == []


def test_a_reply_that_is_pending_says_nothing():
    assert pending_reply().to_config() == {"protocol": PROTOCOL, "status": "pending", "code": "", "reference": ""}
    assert pending_reply().arrays == {}


def test_answers_leave_on_a_grid_of_times():
    for took, held in ((0.0, 2.0), (0.3, 1.7), (2.0, 0.0), (2.1, 1.9), (7.5, 0.5)):
        now, slept = [100.0], []
        pace = Pace(lambda now=now: now[0], slept.append)
        now[0] += took
        pace.hold(2.0)
        assert slept == [pytest.approx(held)]
    pace.hold(0.0)
    assert len(slept) == 1


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

"""More than was accepted: further rounds, unknown stages, a second release or figure, releases to probe the gate."""

import copy
import dataclasses

import numpy as np
import pytest
from flwr.app import ConfigRecord
from support.damaged import flipped
from support.hospital import GATE, ONE_SITE, make_hospital, read

from sfumato_common.errors import VerificationError
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.protocol.flower import encode
from sfumato_common.protocol.messages import CONFIG_KEY


@pytest.mark.parametrize(
    ("stage", "number", "reason"),
    [
        ("spectral", 0, "a round beyond the accepted plan"),
        ("spectral", 2, "a round beyond the accepted plan"),
        ("gan", 0, "a round beyond the accepted plan"),
        ("gan", 4, "a round beyond the accepted plan"),
        ("gan", 1000, "a round beyond the accepted plan"),
        ("flow", 2, "a round beyond the accepted plan"),
        ("flow", 3, "a round beyond the accepted plan"),  # a round that another stage has
        ("diffusion", 1, "a stage that the accepted plan does not have"),
        ("utility", 1, "a stage that the accepted plan does not have"),
        ("gate", 1, "a stage that the accepted plan does not have"),
    ],
)
def test_rounds_and_stages_beyond_the_plan(finished, stage, number, reason):
    arrays = finished.asked["gan", 3].arrays if stage == "gan" else {}
    finished.refuses(finished.request("stage", stage, number, arrays), "policy-refused", reason)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", -1),
        ("round", 1001),
        ("round", 2**62),
        ("round", True),
        ("round", 1.0),
        ("round", "1"),
        ("kind", "metrics"),
        ("kind", "train_metrics"),
        ("kind", "stage "),
        ("stage", "Spectral"),
        ("protocol", 2),
        ("plan_hash", "../" + "0" * 61),
    ],
)
def test_what_a_request_cannot_say_never_reaches_the_site(fresh, field, value):
    records = encode(fresh.request("stage", "spectral", 1))
    records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], field: value})
    before = fresh.charges()
    answered = read(fresh.message(records))
    fresh.refused(answered, "verification-failed", "VerificationError: a ")
    assert fresh.charges() == before == []


@pytest.mark.parametrize("kind", ["utility", "make", "send", "hello"])
@pytest.mark.parametrize("number", [1, 2, 999])
def test_what_is_asked_once_a_plan_has_no_rounds(finished, kind, number):
    # a second histogram under another round would be paid for, but nobody accepted it
    with pytest.raises(VerificationError, match="out of range for its kind"):
        finished.request(kind, "", number)
    asked = finished.asked.get(kind)
    records = encode(asked if asked else finished.request("hello"))
    records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], "round": number})
    before = finished.charges()
    finished.refused(read(finished.message(records)), "verification-failed", "out of range for its kind")
    assert finished.charges() == before


def test_hello_brings_nothing(fresh):
    records = encode(fresh.asked["utility"])
    records[CONFIG_KEY] = ConfigRecord({**records[CONFIG_KEY], "kind": "hello"})
    fresh.refused(read(fresh.message(records)), "verification-failed", "of kind 'hello' brings arrays")


def test_after_the_end_of_a_study_nothing_more_is_answered_or_paid(finished):
    other = {name: value + np.float32(1e-3) for name, value in finished.asked["utility"].arrays.items()}
    finished.refuses(finished.request("utility", brought=other), "ledger-refused", "was charged before")
    before = finished.charges()
    assert finished.ask(finished.request("hello")).arrays == {}
    assert finished.charges() == before


def test_a_release_before_any_training_is_refused_before_the_verdict(fresh):
    fresh.refuses(fresh.asked["make"], "ledger-refused", "nothing was trained here under this plan")
    assert not list(fresh.home.steward_folder.glob("gate-*"))


def other_models(request, seed):
    """Other final models, within reach: what a coordinator would send to ask the gate again."""
    rng = np.random.default_rng(seed)
    arrays = {
        name: np.asarray(value + np.float32(1e-4) * rng.uniform(-1, 1, value.shape).astype(np.float32))
        if ":generator/" in name
        else value
        for name, value in request.arrays.items()
    }
    assert any(not np.array_equal(value, request.arrays[name]) for name, value in arrays.items())
    return dataclasses.replace(request, arrays=arrays)


def test_one_verdict_a_plan_whatever_models_are_sent(trained):
    before = trained.charges()
    assert trained.ask(trained.asked["make"]).status == "ok"
    assert trained.ask(trained.asked["send"]).status == "ok"
    assert trained.charges() == [*before, *GATE]
    for seed in range(3):
        trained.refuses(other_models(trained.asked["make"], seed), "ledger-refused", "was begun with other models")
        # the very same package once more: nothing is drawn, judged or paid again
        assert trained.ask(trained.asked["send"]).status == "ok"
    assert len(set(trained.uploads)) == 1
    assert len(trained.uploads) == 4
    assert trained.charges() == [*before, *GATE]
    assert len(list(trained.home.steward_folder.glob("gate-*"))) == 1


def test_a_gate_that_said_no_is_not_asked_again(trained, monkeypatch):
    # a verdict that must be no
    monkeypatch.setattr("sfumato_client.audit.verdict.copied_patients", lambda sets, train, rules: 10**6)
    request = trained.asked["make"]
    trained.refuses(request, "release-refused", "the gate did not approve", paid=GATE)
    monkeypatch.undo()
    for seed in range(3):
        trained.refuses(other_models(request, seed), "ledger-refused", "was begun with other models")
    for again in (request, trained.asked["send"]):
        trained.refuses(again, "release-refused", "the gate did not approve")
    assert trained.uploads == []
    assert len(list(trained.home.steward_folder.glob("gate-*"))) == 1


def test_a_lost_package_is_not_drawn_again(finished):
    next(finished.home.releases.rglob("formal.sfumato")).unlink()
    for kind in ("make", "send"):
        reply = finished.ask(finished.asked[kind])
        assert reply.status == "ok" if kind == "make" else reply.code == "ledger-refused"
    finished.refuses(finished.asked["send"], "ledger-refused", "package was lost, and is not drawn again")


def test_a_package_that_was_changed_after_its_approval_does_not_leave(finished):
    path = next(finished.home.releases.rglob("formal.sfumato"))
    path.write_bytes(flipped(path.read_bytes()))
    finished.refuses(finished.asked["send"], "release-refused", "not the one that was approved")
    assert finished.uploads == []


def test_what_nobody_asked_to_make_is_not_sent(trained):
    trained.refuses(trained.asked["send"], "ledger-refused", "was never begun here")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gan:generator/last.weight", "not where the plan's training"), ("flow:flow/", "not where the plan's training")],
)
def test_crafted_final_weights_never_reach_the_gate(trained, name, reason):
    request = trained.asked["make"]
    found = next(key for key in request.arrays if key.startswith(name))
    arrays = {**request.arrays, found: request.arrays[found] + np.float32(5.0)}
    trained.refuses(dataclasses.replace(request, arrays=arrays), "verification-failed", reason)
    assert trained.uploads == []
    assert not list(trained.home.steward_folder.glob("gate-*"))


@pytest.mark.parametrize("kinds", [("spectral",), ("gan",), ("spectral", "gan", "flow")])
def test_a_spectral_model_made_to_ask_the_gate_about_a_person_is_refused(trained, kinds):
    # its mean set to a suspected patient's image: the verdict would tell whether that patient is here
    request = trained.asked["make"]
    arrays = {
        name: value + np.float32(1.0) if name.endswith("/mean") and name.startswith(kinds) else value
        for name, value in request.arrays.items()
    }
    reason = "rest on different spectral models" if len(kinds) == 1 else "another one than in this study's earlier"
    trained.refuses(dataclasses.replace(request, arrays=arrays), "verification-failed", reason)
    assert not list(trained.home.steward_folder.glob("gate-*"))


def test_models_that_no_stage_of_the_plan_trains_are_refused(trained):
    request = trained.asked["make"]
    start = {f"discriminator:{k}": v for k, v in to_arrays("x", initial_model("discriminator", trained.plan)).items()}
    for arrays in (
        {**request.arrays, **start},
        {name: value for name, value in request.arrays.items() if not name.startswith("flow:")},
        {},
    ):
        changed = dataclasses.replace(request, arrays=arrays)
        trained.refuses(changed, "verification-failed", "other models than the accepted plan releases")


def test_the_figure_is_asked_once(trained):
    first = trained.asked["utility"]
    assert trained.ask(first).status == "ok"
    paid = trained.charges()
    assert [item[0] for item in paid].count("utility") == 1
    for scale in (0.5, 2.0, 1000.0):  # histogram queries: each classifier would sort the patients differently
        arrays = {name: value * np.float32(scale) for name, value in first.arrays.items()}
        trained.refuses(trained.request("utility", brought=arrays), "ledger-refused", "'utility' round 1 of this plan")
    assert trained.charges() == paid


def test_a_plan_that_states_no_figure_is_asked_for_none(tmp_path, trained):
    values = copy.deepcopy({key: value for key, value in ONE_SITE.items() if key != "utility"})
    site = make_hospital(tmp_path / "plain", "alder", values)
    request = site.request("utility", brought=trained.asked["utility"].arrays)
    site.refuses(request, "policy-refused", "withholds the utility figure")

"""Whole studies in one process: what leaves, what is charged, what is refused, what happens when a site is lost."""

import dataclasses
import json

import numpy as np
import pytest
import yaml

from sfumato_client.site.admission import check_cohorts
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import Declared
from sfumato_common.errors import DataError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority, revoke
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset


def finish(federation):
    return run_study(federation.coordinator, federation, seed=1, classifier_steps=5)


def test_a_whole_study_from_first_message_to_verified_set(federation, tmp_path):
    assert finish(federation) == "completed"
    plan, result = federation.plan, federation.result()
    pool = pool_packages(federation.coordinator.root, plan, Registry(federation.coordinator.root))
    assert {item.site for item in pool.items} == set(plan.sites)
    assert {item.facts.model for item in pool.items} == {"spectral", "gan", "flow"}
    out = tmp_path / "out"
    publish(pool, plan, out, load_authority(federation.coordinator.root), {"exchanges": []}, result["utility"])
    verify_dataset(out / "published", None)
    labels = (out / "published" / "labels.csv").read_text().splitlines()
    assert len(labels) == 1 + len(pool.items)
    assert set(result["utility"]["sites"]) == set(plan.sites)
    # the ledger of every site holds exactly the plan's events and the declared verdict
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            train = ledger.events("train", plan.digest)
            assert [event for event in train if not isinstance(event, Declared)] == study_events(plan, "train")
            assert [event for event in train if isinstance(event, Declared)] == [], "formal images pass no exact test"
            assert ledger.events("holdout", plan.digest) == study_events(plan, "holdout")
            ledger.verify()


def test_nothing_leaves_but_what_the_plan_declares(federation):
    finish(federation)
    assert federation.sent
    for _, request, reply in federation.sent:
        assert reply.status == "ok"
        assert set(reply.to_config()) == {"protocol", "status", "code", "reference"}
        if request.kind == "stage":
            schema = EXCHANGES[request.stage].returned(federation.plan)
            assert reply.arrays.keys() == schema.keys()
            assert all(schema[name].matches(value) for name, value in reply.arrays.items())
        elif request.kind == "utility":
            assert set(reply.arrays) == {"histogram"}
        else:
            assert not reply.arrays
    # of the GAN only the discriminator's update leaves, in little more than half the bytes of its float32 weights
    for _, request, reply in federation.sent:
        if request.stage == "gan":
            weights = sum(v.nbytes for name, v in request.arrays.items() if name.startswith("discriminator/"))
            assert sum(value.nbytes for value in reply.arrays.values()) <= 0.55 * weights


def test_the_study_goes_on_without_a_site_that_is_lost(federation):
    def lose_a_site_in_the_second_stage():
        if any(request.stage == "gan" for _, request, _ in federation.sent):
            federation.down.add("cedar")

    exchange = federation.exchange
    federation.exchange = lambda *arguments: (lose_a_site_in_the_second_stage(), exchange(*arguments))[1]
    assert finish(federation) == "completed"
    words = [item["sites"] for item in federation.result()["exchanges"] if item["stage"] == "flow"]
    assert words
    assert all("cedar" not in sites for sites in words)


def test_below_the_quorum_the_study_stops_and_says_why(federation):
    federation.down.update({"birch", "cedar"})
    assert finish(federation) == "stopped"
    assert "quorum" in federation.result()["reason"]
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            assert ledger.entries() == []


def request_of(federation, **changes):
    base = Request(PROTOCOL, federation.plan.digest, "stage", "spectral", 1, {})
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"plan_hash": "0" * 64}, "policy-refused"),
        ({"round": 2}, "policy-refused"),
        ({"round": 0}, "policy-refused"),
        ({"stage": "gan", "round": 3}, "policy-refused"),
        ({"stage": "diffusion"}, "policy-refused"),
        ({"arrays": {"extra": np.zeros(3, np.float32)}}, "verification-failed"),
        ({"stage": "flow", "arrays": {"flow/x": np.full(3, np.nan, np.float32)}}, "verification-failed"),
    ],
)
def test_requests_beyond_the_accepted_plan_are_refused_and_cost_nothing(federation, changes, code):
    site = federation.sites["alder"]
    reply = site.handle(request_of(federation, **changes))
    assert (reply.status, reply.code) == ("refused", code)
    assert not reply.arrays
    assert len(reply.reference) == 16
    assert (site.home.steward_folder / "errors" / f"{reply.reference}.txt").exists()
    with site.home.open_ledger() as ledger:
        assert ledger.entries() == []


def test_a_repeated_request_gets_the_same_bytes_and_no_second_charge(federation):
    site = federation.sites["alder"]
    first, second = site.handle(request_of(federation)), site.handle(request_of(federation))
    assert first.status == second.status == "ok"
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
    with site.home.open_ledger() as ledger:
        assert len(ledger.entries()) == 1


def test_a_round_that_was_charged_but_never_answered_is_not_run_again(federation, monkeypatch):

    site = federation.sites["alder"]
    monkeypatch.setattr("sfumato_client.training.spectral.release_moments", lambda job: 1 / 0)
    crashed = site.handle(request_of(federation))
    assert (crashed.status, crashed.code) == ("failed", "failed")
    monkeypatch.undo()
    again = site.handle(request_of(federation))
    assert (again.status, again.code) == ("refused", "ledger-refused")
    with site.home.open_ledger() as ledger:
        assert len(ledger.entries()) == 1


def test_no_text_of_an_exception_leaves(federation, monkeypatch):

    def leak(job):
        raise RuntimeError("/archive/DOE^JANE/123456.dcm: 47 patients, loss 0.123")

    monkeypatch.setattr("sfumato_client.training.spectral.release_moments", leak)
    reply = federation.sites["alder"].handle(request_of(federation))
    sent = json.dumps(reply.to_config())
    assert "DOE" not in sent
    assert "47" not in sent.replace(reply.reference, "")
    assert "DOE" in (federation.home("alder").steward_folder / "errors" / f"{reply.reference}.txt").read_text()


def test_what_a_trainer_leaks_does_not_pass_the_door(federation, monkeypatch):
    from sfumato_client.training.spectral import release_moments as honest

    def leak(job):
        return {**honest(job), "num_examples": np.array([47], np.float32)}

    monkeypatch.setattr("sfumato_client.training.spectral.release_moments", leak)
    reply = federation.sites["alder"].handle(request_of(federation))
    assert (reply.status, reply.code) == ("refused", "egress-refused")


def test_a_policy_that_became_stricter_stops_the_study_here(federation):
    home = federation.home("alder")
    policy = yaml.safe_load((home.root / "policy.yaml").read_text())
    policy["allowed_stages"] = ["spectral"]
    (home.root / "policy.yaml").write_text(yaml.safe_dump(policy))
    reply = federation.sites["alder"].handle(request_of(federation))
    assert (reply.status, reply.code) == ("refused", "policy-refused")


def test_the_budget_is_enforced_before_the_data(federation, monkeypatch):

    home = federation.home("alder")
    policy = yaml.safe_load((home.root / "policy.yaml").read_text())
    policy["budget"]["epsilon"] = 0.5
    (home.root / "policy.yaml").write_text(yaml.safe_dump(policy))
    touched = []
    monkeypatch.setattr("sfumato_client.training.spectral.release_moments", lambda job: touched.append(job))
    reply = federation.sites["alder"].handle(request_of(federation))
    assert (reply.status, reply.code) == ("refused", "budget-exceeded")
    assert touched == []


@pytest.mark.parametrize("slack", [0.0, 0.5])
def test_too_few_patients_are_refused_when_the_steward_accepts_and_answered_afterwards(federation, slack):
    home = federation.home("alder")
    store = home.open_store()
    least = int(store.patients / (1.0 + slack))
    for minimum, enough in ((least, True), (least + 1, False), (1000, False)):
        policy = yaml.safe_load((home.root / "policy.yaml").read_text())
        policy |= {"minimum_patients": minimum, "minimum_slack": slack}
        (home.root / "policy.yaml").write_text(yaml.safe_dump(policy))
        if enough:
            check_cohorts(federation.plan, home.policy(), store)
        else:
            with pytest.raises(DataError, match="fewer patients"):
                check_cohorts(federation.plan, home.policy(), store)
    # one patient less after that may not show in an answer, which no charge covers
    assert federation.sites["alder"].handle(request_of(federation)).status == "ok"


def test_release_before_training_and_a_second_gate_are_refused(federation):
    assert finish(federation) == "completed"
    send = next(request for _, request, _ in federation.sent if request.kind == "send")
    site = federation.sites["alder"]
    assert site.handle(send).status == "ok"  # the very same package again
    next(site.home.releases.rglob("formal.sfumato")).unlink()
    reply = site.handle(send)  # would need a second verdict
    assert (reply.status, reply.code) == ("refused", "ledger-refused")


def test_the_coordinator_resumes_from_its_checkpoints(federation):
    exchange = federation.exchange
    calls = []

    def crash_before_the_flow(requests, *rest):
        calls.append(next(iter(requests.values())).stage)
        if calls[-1] == "flow" and "crashed" not in calls:
            calls.append("crashed")
            raise RuntimeError("power cut")
        return exchange(requests, *rest)

    federation.exchange = crash_before_the_flow
    assert finish(federation) == "stopped"
    assert finish(federation) == "completed"
    assert calls.count("spectral") == 1
    assert calls.count("gan") == federation.plan.stage("gan").rounds
    # what was paid before the crash is still shown as paid
    status = json.loads(federation.coordinator.status_file.read_text())
    assert status["epsilon_spent"] == pytest.approx(epsilon(study_events(federation.plan, "train"), status["delta"]))


def test_plan_digest_changes_with_every_value(federation):
    values = federation.plan.model_dump(mode="json")
    values["stages"][0]["noise_multiplier"] += 0.001
    assert parse(values, Plan, "plan").digest != federation.plan.digest


def test_a_site_that_is_revoked_in_mid_study_is_asked_nothing_more(federation):
    """Its node is still there and would answer: the coordinator's registry decides, read anew at every exchange."""
    home, honest = federation.coordinator.root, federation.exchange

    def revoke_during_the_first_stage(requests, *rest):
        if any(request.kind == "stage" for request in requests.values()):
            revoke(home, "cedar")
        return honest(requests, *rest)

    federation.exchange = revoke_during_the_first_stage
    assert finish(federation) == "completed"
    of_cedar = [(request.kind, request.stage) for site, request, _ in federation.sent if site == "cedar"]
    assert of_cedar == [("hello", ""), ("stage", "spectral")]
    assert federation.result()["exchanges"][1]["sites"]["cedar"] == "failed revoked"
    pool = pool_packages(home, federation.plan, Registry(home))
    assert dict(pool.left_out) == {"cedar": "not enrolled, or revoked"}

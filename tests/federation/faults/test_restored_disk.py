"""A site whose disk was restored from yesterday's backup: it charges and sends nothing until a person settles it."""

import contextlib
import dataclasses
import shutil

import pytest
from support.commands import speaker
from support.faults import fault_plan, fault_policy
from support.federations import make_federation
from support.stopped import PowerCut, run_until

from sfumato_client.site import recovery
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_client.site.turns import at_work
from sfumato_common.errors import LedgerError
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.study.costs import study_events
from sfumato_common.types import fingerprint
from sfumato_server.coordinator.study import run_study

SITE = "cedar"


@pytest.fixture
def federation(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato_client.audit.attacks.identity._STEPS", 5)
    return make_federation(tmp_path, fault_plan(2), fault_policy())


@pytest.fixture
def say(monkeypatch, capsys):
    return speaker(monkeypatch, capsys)


def back_up(federation, tmp_path):
    return shutil.copytree(federation.home(SITE).root, tmp_path / "backup")


def restore(federation, backup):
    root = federation.home(SITE).root
    shutil.rmtree(root)
    shutil.copytree(backup, root)


def names(home):
    with home.open_ledger() as ledger:
        ledger.verify()
        return [(entry.purpose, entry.round) for entry in ledger.entries()]


def finish(federation):
    federation.sent.clear()
    assert run_study(federation.coordinator, federation, classifier_steps=5) == "completed", federation.result()
    return [(request.kind, reply.status, reply.code) for site, request, reply in federation.sent if site == SITE]


def test_it_refuses_until_a_person_has_put_the_lost_charges_back(federation, tmp_path, say):
    home, plan = federation.home(SITE), federation.plan
    run_until(federation, "stage", 1)
    backup = back_up(federation, tmp_path)
    assert names(home) == []
    run_until(federation, "stage", 2)
    assert names(home) == [("spectral", 1), ("gan", 1)]
    restore(federation, backup)
    run_until(federation, "make")
    said = [reply for site, request, reply in federation.sent if site == SITE][-2:]
    assert [(reply.status, reply.code) for reply in said] == [("refused", "ledger-refused")] * 2, "hello, and gan 2"
    assert names(home) == []
    with home.open_ledger() as ledger, pytest.raises(LedgerError, match="ledger recover"):
        ledger.reserve(
            study="a table", plan_hash="0" * 64, purpose="table", round=1, cohort="train",
            event=study_events(plan, "train")[0],
        )  # fmt: skip
    code, _, shown = say("sfumato-site", "ledger", "recover", "--home", home.root, "--yes")
    assert code == 0 and "spectral" in shown and "gan" in shown
    assert names(home) == [("gan", 1), ("spectral", 1)]
    assert all(status == "ok" for _, status, _ in finish(federation))
    with home.open_ledger() as ledger:
        assert ledger.unsettled_charges() == []
        charged = ledger.events("train", plan.digest)
    # the gate's verdict comes to what the plan lists
    assert len(charged) == len(study_events(plan, "train")) - 1 + 1, "gan 2 went on without it"
    assert "lacks nothing" in say("sfumato-site", "ledger", "recover", "--home", home.root)[2]


def test_work_that_the_backup_holds_half_done_is_not_done_again(federation, tmp_path):
    """The one case where the charge itself is there: an answer under it has left, another must not."""
    site, plan = federation.sites[SITE], federation.plan
    request = Request(PROTOCOL, plan.digest, "stage", "spectral", 1, {})
    home = site.home
    mark = home.turns(plan) / "spectral-1.json"
    event = study_events(plan, "train")[0]
    terms = {"study": plan.study, "plan_hash": plan.digest, "purpose": "spectral", "round": 1, "cohort": "train"}
    with contextlib.suppress(PowerCut), at_work(mark, fingerprint(request.arrays)):
        with home.open_ledger() as ledger:
            ledger.reserve(**terms, event=event)
        raise PowerCut
    backup = back_up(federation, tmp_path)
    assert site.handle(request).status == "ok"
    restore(federation, backup)
    reply = site.handle(dataclasses.replace(request, answered="spectral:1"))
    assert (reply.status, reply.code) == ("refused", "ledger-refused")
    recovery.recover(home, recovery.recoveries(home))
    reply = site.handle(dataclasses.replace(request, answered="spectral:1"))
    assert (reply.status, reply.code) == ("refused", "ledger-refused"), "it was charged before"
    assert names(home) == [("spectral", 1)]
    with home.open_ledger() as ledger:
        assert ledger.unsettled_charges() == []


def test_a_release_that_was_sent_is_neither_asked_for_nor_made_again(federation, tmp_path):
    home = federation.home(SITE)
    run_until(federation, "make")
    backup, before = back_up(federation, tmp_path), names(home)
    run_until(federation, "utility")
    after = names(home)
    assert len(after) > len(before)
    packages = {path.name: path.read_bytes() for path in federation.coordinator.root.rglob("*.sfumato")}
    assert len(packages) == 6
    restore(federation, backup)
    assert finish(federation) == [("hello", "refused", "ledger-refused"), ("utility", "refused", "ledger-refused")]
    assert names(home) == before
    recovery.recover(home, recovery.recoveries(home))
    assert sorted(names(home)) == sorted(after)
    with home.open_ledger() as ledger:
        assert ledger.unsettled_charges() == []
    make = next(request for site, request, _ in reversed(federation.sent) if request.kind == "hello")
    assert federation.sites[SITE].handle(make).status == "ok"
    assert {path.name: path.read_bytes() for path in federation.coordinator.root.rglob("*.sfumato")} == packages


def test_a_coordinator_restored_from_a_backup_goes_on_with_what_the_sites_kept(federation, tmp_path):
    """It asks rounds again that were answered: its draws are the same, so are its questions, and nobody pays twice."""
    run_until(federation, "stage", 2)
    backup = shutil.copytree(federation.coordinator.root, tmp_path / "backup")
    for path in backup.glob("checkpoints/*/gan-*"):
        path.unlink()  # as it was before the first round of the second stage ended
    run_until(federation, "make")
    paid = {site: names(federation.home(site)) for site in federation.sites}
    shutil.rmtree(federation.coordinator.root)
    shutil.copytree(backup, federation.coordinator.root)
    federation.sent.clear()
    run_until(federation, "make")
    asked = [(request.stage, request.round, reply.status) for _, request, reply in federation.sent if request.stage]
    assert asked == [("gan", 1, "ok")] * 3 + [("gan", 2, "ok")] * 3
    assert {site: names(federation.home(site)) for site in federation.sites} == paid


@pytest.mark.parametrize("told", ["gan:3", "spectral:2", "teapot:1", "formal:2", "utility:2"])
def test_answers_that_the_plan_does_not_ask_for_are_refused_and_stop_nothing(federation, told):
    site = federation.sites[SITE]
    request = Request(PROTOCOL, federation.plan.digest, "hello", "", 0, {}, told)
    assert site.handle(request).code == "verification-failed"
    assert site.handle(dataclasses.replace(request, answered="")).status == "ok"
    assert recovery.recoveries(site.home) == []


def test_a_coordinator_that_lies_gets_nothing_by_it(federation):
    """It can stop a site, as by asking nothing; what a person then puts back counts too much, never too little."""
    site = Site(SiteHome(federation.home(SITE).root), upload=None)
    request = Request(PROTOCOL, federation.plan.digest, "hello", "", 0, {}, "gan:1")
    assert site.handle(request).code == "ledger-refused"
    assert site.handle(dataclasses.replace(request, answered="")).code == "ledger-refused", "until a person has looked"
    recovery.recover(site.home, recovery.recoveries(site.home))
    assert site.handle(request).status == "ok"
    assert names(site.home) == [("gan", 1)]

"""A release is made and sent in two steps: killed anywhere it goes on where it stood; its parts stand apart."""

import copy
import dataclasses
import json
import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest
import yaml
from support.damaged import flipped
from support.federations import make_federation
from support.stopped import die_at_write, stop_before_release
from support.studies import PLAN, POLICY

from sfumato_client.audit import verdict
from sfumato_client.site import making
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_common.errors import DataError, ReleaseRefused
from sfumato_common.locks import exclusive
from sfumato_common.package import open_package
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.study import shards
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry
from sfumato_server.intake.admission import admit, largest_package
from sfumato_server.pool import pool_packages

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
QUICK = {"encoder_steps": 2, "refinement_steps": 1, "k": 3}
RELEASE = [
    {"model": "spectral", "images": 6},
    {"method": "dp-glow", "images": 5, "radius": 60.0, "epsilon": 2.0},
    {"method": "k-same", "images": 4, **QUICK},
]
FORK = multiprocessing.get_context("fork")


def policy():
    gate = {**POLICY["release"]["gate"], "identity_share_limit": 1.0}
    methods = [item.get("method", "dp-sampling") for item in RELEASE]
    return {**POLICY, "release": {**POLICY["release"], "allowed_methods": methods, "smallest_group": 2, "gate": gate}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A federation whose study stopped before its release, and the request that would begin it."""
    plan = {**copy.deepcopy(PLAN), "release": RELEASE, "federation": {**PLAN["federation"], "round_deadline_s": 600}}
    federation = make_federation(tmp_path_factory.mktemp("steps"), plan, policy())
    asked = stop_before_release(federation)
    return federation, asked["alder"]


@pytest.fixture
def site(trained, tmp_path):
    """A copy of a trained site; what it uploads is kept in `uploads`."""
    federation, _ = trained
    home = SiteHome(shutil.copytree(federation.home("alder").root, tmp_path / "alder"))
    found = Site(home, lambda data, plan: uploads.append(data))
    uploads = found.uploads = []
    return found


def ask(site, trained, kind):
    _, make = trained
    request = make if kind == "make" else Request(PROTOCOL, make.plan_hash, "send", "", 0, {})
    return site.handle(request)


def charges(site):
    with site.home.open_ledger() as ledger:
        ledger.verify()
        assert ledger.unsettled_charges() == []
        return [(entry.purpose, entry.round, entry.cohort) for entry in ledger.entries()]


def packages(site, federation):
    key = Registry(federation.coordinator.root).record_in_force("alder").signing_key.encode()
    return [
        open_package(
            data,
            key,
            expected_site="alder",
            expected_plan_hash=federation.plan.digest,
            largest_bytes=largest_package(federation.plan),
        )
        for data in site.uploads
    ]


def test_making_sends_nothing_and_sending_makes_nothing(site, trained, monkeypatch):
    assert ask(site, trained, "make").status == "ok"
    assert site.uploads == []
    made = charges(site)
    monkeypatch.setattr(making, "anonymise", None)  # whatever is made from now on fails
    for _ in range(2):
        assert ask(site, trained, "send").status == "ok"
    assert charges(site) == made
    formal, declared = packages(site, trained[0])[:2]
    assert (formal.head.part, declared.head.part) == ("formal", "declared")
    assert site.uploads[:2] == site.uploads[2:]


def test_whatever_is_sent_has_an_approval_that_names_its_bytes(site, trained):
    ask(site, trained, "make")
    ask(site, trained, "send")
    with site.home.open_ledger() as ledger:
        approvals = ledger.approvals(trained[0].plan.digest)
    assert list(approvals) == ["formal", "declared"]
    key = Registry(trained[0].coordinator.root).record_in_force("alder").signing_key.encode()
    for leave, data in zip([leave for part in approvals.values() for leave in part], site.uploads, strict=True):
        leave.check(data, key)
    assert len(approvals["formal"][0].sets) == 2
    assert len(approvals["declared"][0].sets) == 1


def _make_and_die(site, trained, steps):
    """In a child: SIGKILL's place, before the write number `steps`; the child's exit code says whether it got there."""
    die_at_write(steps)
    os._exit(0 if ask(site, trained, "make").status == "ok" else 1)


def test_a_release_that_is_killed_before_any_of_its_writes_goes_on_where_it_stood(site, trained, monkeypatch):
    made = []
    codes = []
    for steps in range(1, 60, 2):
        child = FORK.Process(target=_make_and_die, args=(site, trained, steps))
        child.start()
        child.join(120)
        codes.append(child.exitcode)
        if child.exitcode == 0:
            break
        assert child.exitcode == 9, "killed, and never refused because of an earlier kill"
    assert codes[-1] == 0
    assert len(codes) > 3, "it was killed several times on its way"
    monkeypatch.setattr(making, "anonymise", lambda job: made.append(job))
    assert ask(site, trained, "make").status == "ok"
    assert ask(site, trained, "send").status == "ok"
    assert made == [], "what is finished is not begun again"
    found = charges(site)
    assert len(found) == len(set(found)), "nothing is charged twice"
    assert sum(purpose.startswith("release-") for purpose, _, _ in found) == 2  # dp-glow's and k-same's
    assert sum(purpose.startswith("gate-") for purpose, _, _ in found) == 2, "of the declared part, in both books"
    assert [package.head.part for package in packages(site, trained[0])] == ["formal", "declared"]


def test_a_site_that_is_at_work_says_so_and_nothing_else(site, trained):
    root = site.home.releases / trained[0].plan.digest[:16]
    ask(site, trained, "make")
    with exclusive(root, "another process"):
        for kind in ("make", "send"):
            reply = ask(site, trained, kind)
            assert (reply.status, reply.code, reply.reference, dict(reply.arrays)) == ("pending", "", "", {})
    assert site.uploads == []
    assert ask(site, trained, "send").status == "ok"


def test_work_is_left_off_between_two_items_when_its_time_is_over(site, trained, monkeypatch):
    made, real, clock = [], making.anonymise, [0.0]

    def slow(job):
        made.append(job.item.method)
        clock[0] += 400.0
        return real(job)

    monkeypatch.setattr(making, "anonymise", slow)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    assert ask(site, trained, "make").status == "pending"
    assert made == ["dp-sampling"]
    assert [ask(site, trained, "send").status for _ in range(3)] == ["pending", "ok", "ok"]
    assert made == ["dp-sampling", "dp-glow", "k-same"]


@pytest.mark.parametrize("fault", ["gate", "data"])
def test_a_refused_k_anonymous_set_does_not_hold_back_the_formal_one(site, trained, monkeypatch, fault):
    if fault == "gate":
        real = verdict.judge
        blocked = lambda *args: verdict._refuse("no")  # noqa: E731
        monkeypatch.setattr(
            verdict, "judge", lambda sets, *args: (blocked if sets[0].method == "k-same" else real)(sets, *args)
        )
    else:
        real = making.anonymise

        def too_few(job):
            if job.item.method == "k-same":
                raise DataError("too few patients")
            return real(job)

        monkeypatch.setattr(making, "anonymise", too_few)
    assert ask(site, trained, "make").status == "ok"
    assert ask(site, trained, "send").status == "ok"
    (formal,) = packages(site, trained[0])
    assert formal.head.part == "formal"
    monkeypatch.undo()
    # a verdict stands: nothing of the refused part is made or asked again
    assert ask(site, trained, "make").status == "ok"
    assert ask(site, trained, "send").status == "ok"
    assert len(set(site.uploads)) == 1


@pytest.mark.parametrize("fault", ["", "gate", "data", "people"])
def test_how_far_a_release_is_counts_the_plan_s_images_whatever_becomes_of_a_part(site, trained, monkeypatch, fault):
    """The attack: read from the steps that are told whether the gate let a part pass, or people have it."""
    seen, makers, real, begun = [], [], making.anonymise, making.Maker.__init__

    def begin(self, *args):
        begun(self, *args)
        makers.append(self)

    def counted(job):
        seen.append(makers[-1].made)
        if fault == "data" and job.item.method == "k-same":
            raise DataError("too few patients")
        return real(job)

    def blocked(self, part, sets):
        if part == "declared" and fault in ("gate", "people"):
            raise ReleaseRefused("no") if fault == "gate" else making.Waiting
        return approve(self, part, sets)

    approve = making.Maker._approve
    monkeypatch.setattr(making.Maker, "_approve", blocked)
    monkeypatch.setattr(making.Maker, "__init__", begin)
    monkeypatch.setattr(making, "anonymise", counted)
    ask(site, trained, "make")
    assert seen == [0, 6, 11]
    assert makers[-1].made == shards.release_images(trained[0].plan, "alder") == 15


def test_an_item_that_was_changed_on_disk_is_not_released(site, trained, monkeypatch):
    real = making.Maker._approve

    def changed(self, part, sets):
        raise KeyboardInterrupt

    monkeypatch.setattr(making.Maker, "_approve", changed)
    with pytest.raises(KeyboardInterrupt):
        ask(site, trained, "make")
    monkeypatch.setattr(making.Maker, "_approve", real)
    path = next(site.home.releases.rglob("dp-glow-flow.safetensors"))
    path.write_bytes(flipped(path.read_bytes()))
    reply = ask(site, trained, "make")
    assert (reply.status, reply.code) == ("refused", "egress-refused")
    text = (site.home.steward_folder / "errors" / f"{reply.reference}.txt").read_text()
    assert "not the one that was sealed" in text


def test_the_coordinator_asks_again_until_nothing_is_pending(trained, tmp_path):
    """The whole way: one site is busy twice, one goes away for good; the others' images are pooled."""
    plan = {**copy.deepcopy(PLAN), "release": RELEASE}
    federation = make_federation(tmp_path, plan, policy())
    exchange, busy = federation.exchange, [2]

    def hindered(requests, *rest):
        kinds = {request.kind for request in requests.values()}
        if kinds == {"make"}:
            federation.down = {"cedar"}
        if kinds == {"send"} and "birch" in requests and busy[0]:
            busy[0] -= 1
            root = federation.home("birch").releases / federation.plan.digest[:16]
            with exclusive(root, "another process"):
                return exchange(requests, *rest)
        return exchange(requests, *rest)

    federation.exchange = hindered
    assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "completed"
    asked = [(site, reply.status) for site, request, reply in federation.sent if request.kind == "send"]
    assert asked == [("alder", "ok"), ("birch", "pending"), ("birch", "pending"), ("birch", "ok")]
    pool = pool_packages(federation.coordinator.root, federation.plan, Registry(federation.coordinator.root))
    assert set(pool.sites) == {"alder", "birch"}
    assert dict(pool.left_out) == {"cedar": "sent no package"}
    assert np.unique([item.facts.guarantee for item in pool.items]).tolist() == ["formal", "syntactic"]


def test_a_release_that_was_killed_between_shards_goes_on(site, trained, monkeypatch):
    """Eleven formal images in shards of four: none of the first seal leaves, each shard has an approval of its own."""
    monkeypatch.setattr(shards, "MOST_IMAGES", 4)
    real, written = making.write_atomic, []

    def killed(path, data, **terms):
        if written:
            raise KeyboardInterrupt
        written.append(data)
        real(path, data, **terms)

    monkeypatch.setattr(making, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(site, trained, "make")
    with site.home.open_ledger() as ledger:
        assert ledger.approvals(trained[0].plan.digest) == {}
    monkeypatch.setattr(making, "write_atomic", real)
    assert ask(site, trained, "make").status == "ok"
    assert ask(site, trained, "send").status == "ok"
    heads = [package.head for package in packages(site, trained[0])]
    assert [(head.part, head.shard, head.shards, head.images) for head in heads] == [
        ("formal", 1, 3, 4),
        ("formal", 2, 3, 4),
        ("formal", 3, 3, 3),
        ("declared", 1, 1, 4),
    ]
    assert written[0] not in site.uploads
    names = [entry.name for package in packages(site, trained[0])[:3] for entry in package.entries]
    assert names == sorted(set(names))
    registry = Registry(trained[0].coordinator.root)
    record, plan = registry.record_in_force("alder"), trained[0].plan
    with site.home.open_ledger() as ledger:
        formal = ledger.approvals(plan.digest)["formal"]
    for leave, data in zip(formal, site.uploads, strict=False):
        assert admit(data, plan, record).head.shard == leave.shard
        leave.check(data, record.signing_key.encode())
        for lie in ({"shard": leave.shard % 3 + 1}, {"shards": 4}, {"shard": 1, "shards": 1}):
            with pytest.raises(ReleaseRefused, match="not signed by this site"):
                dataclasses.replace(leave, **lie).check(data, record.signing_key.encode())


def test_a_lost_shard_is_not_drawn_again(site, trained, monkeypatch):
    monkeypatch.setattr(shards, "MOST_IMAGES", 4)
    assert ask(site, trained, "make").status == "ok"
    next(site.home.releases.rglob("formal.0002.sfumato")).unlink()
    assert ask(site, trained, "send").status == "refused"
    assert ask(site, trained, "make").status == "ok"
    assert ask(site, trained, "send").status == "refused"
    assert len(set(site.uploads)) == 1  # what came before it, again


def test_who_is_behind_images_is_kept_until_the_gate_has_judged_and_no_longer(site, trained, monkeypatch):
    gate = {**policy()["release"]["gate"], "report": ["learned-pairs"]}
    values = {**policy(), "release": {**policy()["release"], "gate": gate}, "site": "alder"}
    (site.home.root / "policy.yaml").write_text(yaml.safe_dump(values))

    def kept():
        return [path.name for path in site.home.releases.rglob("*.behind")]

    def killed(*args):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(making, "gate", killed)
        assert ask(site, trained, "make").status != "ok"
    assert kept() == ["k-same-gan.behind"]
    assert ask(site, trained, "make").status == "ok"
    assert kept() == []
    (report,) = site.home.steward_folder.glob("gate-*.json")
    (untried,) = json.loads(report.read_text())["attacks_not_tried"]
    assert "it learns on half of the groups" in untried["reason"], "it knew who is behind, and four images are few"
    ask(site, trained, "send")
    assert not any(b"behind" in data for data in site.uploads)

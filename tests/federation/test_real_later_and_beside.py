"""With real processes: a site that joins while the rounds go on, and one home in two studies at once. Linux only."""

import copy
import os
import signal
import sys

import pytest
from support.enrolment import enrol_site, keep_grant
from support.federations import make_federation
from support.homes import make_home
from support.parties import address, parties
from support.plans import dp_sgd
from support.processes import tree, wait_for
from support.studies import PLAN, POLICY

from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.identity import load_identity
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import free_port
from sfumato_server.coordinator.admitting import admit_site
from sfumato_server.publish import verify_dataset
from sfumato_server.simulate.home import make_coordinator
from sfumato_server.status.board import read_board

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(600),
]
ROUNDS = 12  # with two ranks a round takes several seconds longer, and with jobs as long again
ROOMY = {**POLICY, "budget": {"epsilon": 200.0, "delta": 1.0e-5}}


def values(study, **more):
    gan = dp_sgd(kind="gan", rounds=ROUNDS, width=8, generator_steps=2, fakes=8, noise_multiplier=4.0)
    return {
        **copy.deepcopy(PLAN),
        "study": study,
        "sites": {"alder": {"nominal_patients": 40}},
        "stages": [PLAN["stages"][0], gan],
        "release": PLAN["release"][:2],
        "federation": {"quorum": 1, "round_deadline_s": 60, "join_deadline_s": 120},
        **more,
    }


def rounds_paid(home, plan_hash):
    with home.open_ledger() as ledger:
        ledger.verify()
        return [(entry.purpose, entry.round) for entry in ledger.entries() if entry.plan_hash == plan_hash]


def stage_of(home):
    board = read_board(home / "status.json") or {}
    return board.get("stage", ""), board.get("round", 0)


def test_a_site_joins_while_the_rounds_go_on(tmp_path):
    """The first site works on two devices, the one that joins by jobs."""
    made, port = make_federation(tmp_path, values("growing", joining="later"), ROOMY), free_port()
    alder, root = made.home("alder"), made.coordinator.root
    identity = load_identity(alder.identity)
    keep_grant(root, identity, enrol_site(root, identity))
    address(alder, port)
    with parties(tmp_path) as at_work:
        out = at_work.coordinator("coordinator", root, port)
        at_work.start("alder", "sfumato-site", "run", "--home", alder.root, "--devices", 2)
        assert wait_for(lambda: stage_of(root)[0] == "gan", 180), at_work.said()
        own = admit_site(made.coordinator, "dahlia", 40)
        dahlia = make_home(tmp_path / "sites" / "dahlia", "dahlia", own, ROOMY, 40)
        identity = load_identity(dahlia.identity)
        keep_grant(root, identity, enrol_site(root, identity))
        address(dahlia, port)
        script = tmp_path / "job.sh"
        script.write_text(f'#!/bin/sh\necho job >> {tmp_path}/jobs\nexec "$@"\n')
        script.chmod(0o700)
        run = ("sfumato-site", "run", "--home", dahlia.root, "--launcher", f"{script} {{command}}")
        at_work.start("dahlia", *run)
        at_work.end("coordinator")
    report = verify_dataset(out / "published", None)
    assert set(report.sites) == {"alder", "dahlia"}
    late = rounds_paid(dahlia, own.digest)
    assert (tmp_path / "jobs").read_text().count("job") > len(late), "each charge, and the check of locks, is a job's"
    assert (alder.root / "logs" / "ranks.log").exists(), "the other site shared its steps"
    numbers = [number for purpose, number in late if purpose == "gan"]
    assert numbers == list(range(numbers[0], ROUNDS + 1))
    assert numbers[0] > 1
    assert not [purpose for purpose, _ in late if purpose == "spectral"]
    plan = made.coordinator.plan()
    with alder.open_ledger() as ledger:
        assert ledger.events("train", plan.digest_at("alder")) == study_events(plan, "train")


def test_one_home_takes_part_in_two_studies_and_a_kill_of_one_leaves_the_other(tmp_path):
    first = make_federation(tmp_path / "one", values("first"), ROOMY)
    plan = parse(values("second"), Plan, "plan")
    coordinator = make_coordinator(tmp_path / "two", plan)
    one = first.home("alder")
    two, identity, ports = SiteHome(one.root, "second"), load_identity(one.identity), (free_port(), free_port())
    keep_grant(first.coordinator.root, identity, enrol_site(first.coordinator.root, identity))
    two.link.mkdir(parents=True)
    granted = enrol_site(coordinator.root, identity)
    from support.enrolment import sealed_grant

    from sfumato_common.crypto.enrolment import store_grant
    from sfumato_common.crypto.signatures import fingerprint
    from sfumato_server.enrol import load_authority

    told = fingerprint(load_authority(coordinator.root).public_key)
    store_grant(identity, sealed_grant(coordinator.root, granted), told, folder=two.grant)
    two.pin(plan)
    for home, port in zip((one, two), ports, strict=True):
        address(home, port)
    with parties(tmp_path) as at_work:
        outs = [
            at_work.coordinator("first", first.coordinator.root, ports[0]),
            at_work.coordinator("second", coordinator.root, ports[1]),
        ]
        at_work.start("site-first", "sfumato-site", "run", "--home", one.root)
        at_work.start("site-second", "sfumato-site", "run", "--home", one.root, "--study", "second")
        assert wait_for(lambda: stage_of(coordinator.root)[0] == "gan", 240), at_work.said()
        before = stage_of(first.coordinator.root)
        for pid in tree(at_work.children["site-second"].pid):
            os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: stage_of(first.coordinator.root) != before, 120), "the first goes on"
        second = ("site-second", "sfumato-site", "run", "--home", one.root, "--study", "second")
        for name in ("first", "second"):
            at_work.end(name, beside=lambda: at_work.keep_running(*second))
    for out, home, own in zip(outs, (one, two), (first.plan, plan), strict=True):
        assert verify_dataset(out / "published", None)
        paid = rounds_paid(home, own.digest)
        assert len(paid) == len(set(paid)), "nothing was charged twice"
        assert {number for purpose, number in paid if purpose == "gan"} == set(range(1, ROUNDS + 1))
    with one.open_ledger() as ledger:
        assert ledger.unsettled_charges() == []

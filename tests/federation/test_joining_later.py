"""A fourth site joins a study that runs: it pays for what it takes part in, and nothing changes for the others."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import save
from support.commands import speaker
from support.federations import make_federation, make_site
from support.studies import PLAN

from sfumato_client.ledger.check import check_package
from sfumato_common.accounting.accountant import count_mechanisms
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError, PolicyRefusal, VerificationError
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.starts import keep_start
from sfumato_common.types import fingerprint
from sfumato_server.coordinator.admitting import admit_site
from sfumato_server.coordinator.pretraining import pretrain
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset

LATER = {**copy.deepcopy(PLAN), "joining": "later"}
NEW = "dahlia"
STARTED = set(PLAN["sites"])


def join(federation, patients=40):
    """What coordinator and new site do, while the rounds go on."""
    plan = admit_site(federation.coordinator, NEW, patients)
    federation.sites[NEW] = make_site(federation.root, NEW, federation.coordinator, plan)


def run(federation, after=None):
    """The study; the fourth site joins when the exchange `after`, a stage and a round, is over."""
    exchange = federation.exchange

    def watched(requests, *rest):
        exchange(requests, *rest)
        last = federation.sent[-1][1]
        if (last.stage, last.round) == after and NEW not in federation.sites:
            join(federation)

    federation.exchange = watched
    outcome = run_study(federation.coordinator, federation, seed=1, classifier_steps=5)
    federation.plan = federation.coordinator.plan()
    return outcome


def rows(federation, site):
    with federation.home(site).open_ledger() as ledger:
        ledger.verify()
        assert ledger.unsettled_charges() == []
        return [(entry.plan_hash, entry.purpose, entry.round, entry.cohort, entry.event) for entry in ledger.entries()]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The same study without and with a fourth site that joins after the GAN's first round."""
    alone, joined = (make_federation(tmp_path_factory.mktemp(name), LATER) for name in ("alone", "joined"))
    return (alone, run(alone)), (joined, run(joined, ("gan", 1)))


def test_a_site_that_joins_pays_a_row_a_round_from_there_and_nothing_before(studies):
    (_, _), (federation, outcome) = studies
    assert outcome == "completed"
    digest = federation.plan.digest_at(NEW)
    paid = rows(federation, NEW)
    assert [(purpose, number) for _, purpose, number, _, _ in paid] == [("gan", 2), ("flow", 1), ("utility", 1)]
    assert {plan_hash for plan_hash, *_ in paid} == {digest}
    asked = [(request.kind, request.stage, request.round) for site, request, _ in federation.sent if site == NEW]
    assert asked[0] == ("stage", "gan", 2), "nothing was asked before, and no 'hello' is missing"


def test_nothing_changes_for_the_others(studies):
    (alone, _), (joined, _) = studies
    for site in STARTED:
        assert rows(alone, site) == rows(joined, site), "no row more, under the same plan hash"
    point = next(at for at, (site, _, _) in enumerate(joined.sent) if site == NEW)
    before = [entry for entry in joined.sent[:point] if (entry[1].stage, entry[1].round) != ("gan", 2)]
    assert len(before) == 3 * len(STARTED)  # hello, spectral, the first round
    for (site, request, reply), (other, asked, answered) in zip(before, alone.sent, strict=False):
        assert (site, request.to_config()) == (other, asked.to_config())
        for ours, theirs in ((request.arrays, asked.arrays), (reply.arrays, answered.arrays)):
            assert ours.keys() == theirs.keys()
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    # the round it joins in begins from the same weights
    ours, theirs = (
        next(request for site, request, _ in study.sent if (site, request.stage, request.round) == ("alder", "gan", 2))
        for study in (joined, alone)
    )
    assert ours.held == theirs.held
    assert all(np.array_equal(ours.arrays[name], theirs.arrays[name]) for name in ours.arrays)


def test_it_counts_in_the_rounds_and_its_images_are_published(studies, tmp_path):
    (alone, _), (joined, _) = studies
    exchanges = joined.result()["exchanges"]
    words = {(item["stage"], item["round"]): set(item["sites"]) for item in exchanges}
    assert words["gan", 1] == STARTED
    assert words["gan", 2] == words["flow", 1] == words["make", 1] == STARTED | {NEW}
    root = joined.coordinator.root
    models = [list(study.coordinator.root.glob("checkpoints/*/flow-model.safetensors")) for study in (alone, joined)]
    assert models[0][0].read_bytes() != models[1][0].read_bytes(), "its update counts"
    pool = pool_packages(root, joined.plan, Registry(root))
    assert set(pool.sites) == STARTED | {NEW}
    publish(pool, joined.plan, tmp_path, load_authority(root), {"exchanges": exchanges}, joined.result()["utility"])
    report = verify_dataset(tmp_path / "published", None)
    assert NEW in report.sites
    assert report.plan_hash == joined.plan.study_digest


def test_its_certificate_says_what_was_paid_and_the_ledger_agrees(studies):
    (_, _), (federation, _) = studies
    pool = pool_packages(federation.coordinator.root, federation.plan, Registry(federation.coordinator.root))
    late, early = pool.certificates[NEW], pool.certificates["alder"]
    assert late.epsilon.train.add_remove < early.epsilon.train.add_remove
    for site, mechanisms in ((NEW, 2), ("alder", 3)):
        home = federation.home(site)
        with home.open_ledger() as ledger:
            export = ledger.export()
            charged = count_mechanisms(ledger.events("train"))
        package = package_path(federation.coordinator.root, site, "formal").read_bytes()
        report = check_package(export, package, load_identity(home.identity).signing_public)
        report.require()
        assert (report.pending, report.approved) == (0, True)
        lines = pool.certificates[site].mechanisms["train"]
        assert len(count_mechanisms(study_events(federation.plan, "train"))) >= len(lines)
        assert sum(line.get("steps", line.get("times")) for line in lines) == charged.total()
        assert mechanisms >= len(lines)


def test_a_site_that_joins_before_anything_runs_pays_the_whole_plan(tmp_path):
    federation = make_federation(tmp_path, LATER)
    join(federation)
    assert run(federation) == "completed"
    with federation.home(NEW).open_ledger() as ledger:
        assert ledger.events("train") == study_events(federation.plan, "train")


def test_once_its_release_has_begun_a_site_trains_no_more(studies):
    (_, _), (federation, _) = studies
    site, digest = federation.sites[NEW], federation.plan.digest_at(NEW)
    before = rows(federation, NEW)
    reply = site.handle(Request(PROTOCOL, digest, "stage", "spectral", 1, {}))
    assert (reply.status, reply.code) == ("refused", "policy-refused")
    assert "release has begun" in (site.home.steward_folder / "errors" / f"{reply.reference}.txt").read_text()
    assert rows(federation, NEW) == before


# what a hostile coordinator may show, and what it may not


def plan_with(**changes) -> Plan:
    return parse({**copy.deepcopy(LATER), **changes}, Plan, "plan")


def test_plans_that_differ_in_the_others_entries_are_one_to_a_site():
    others = {"alder": {"nominal_patients": 40}, "zinnia": {"nominal_patients": 4000}}
    one, two = plan_with(), plan_with(sites=others)
    assert one.digest != two.digest
    assert one.digest_at("alder") == two.digest_at("alder")
    assert one.study_digest == two.study_digest
    assert one.at_site("alder").sites.keys() == {"alder"}


@pytest.mark.parametrize(
    "changes",
    [
        {"sites": {**LATER["sites"], "alder": {"nominal_patients": 41}}},
        {"study": "another"},
        {"privacy": {"epsilon": 39.0, "delta": 1e-5}},
        {"federation": {**LATER["federation"], "quorum": 1}},
        {"release": LATER["release"][:1]},
        {"utility": None},
        {"joining": None},
    ],
)
def test_a_plan_that_differs_in_anything_else_is_refused(tmp_path, changes):
    federation = make_federation(tmp_path, {**LATER, "sites": {"alder": LATER["sites"]["alder"]}})
    other = plan_with(**changes)
    reply = federation.sites["alder"].handle(Request(PROTOCOL, other.digest_at("alder"), "stage", "spectral", 1, {}))
    assert (reply.status, reply.code) == ("refused", "policy-refused")
    assert rows(federation, "alder") == []


def test_a_site_keeps_nothing_of_the_others_entries(tmp_path):
    federation = make_federation(tmp_path, LATER)
    [file] = (federation.home("alder").root / "plans").iterdir()
    assert json.loads(file.read_text())["sites"].keys() == {"alder"}
    federation.home("alder").pin(plan_with(sites={"alder": {"nominal_patients": 40}}))
    with pytest.raises(PolicyRefusal, match="another plan named 'tiny'"):
        federation.home("alder").pin(plan_with(sites={"alder": {"nominal_patients": 50}}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": [{**LATER["stages"][0], "by_site": True}, *LATER["stages"][1:]]}, "'by_site'"),
        ({"release": [{"model": "spectral", "images": 12, "images_at": {"alder": 3}}]}, "'images_at'"),
        ({"joining": "sooner"}, "joining"),
    ],
)
def test_what_would_depend_on_the_others_is_refused_with_words(changes, words):
    with pytest.raises(ConfigError, match=words):
        plan_with(**changes)


def test_plans_of_before_keep_their_digest():
    plan = parse(PLAN, Plan, "plan")
    assert plan.digest == "628ce9561260edf1224b13e4fb42b361ad26028b1b55d578dd18ce02e8b15d89"
    assert plan.digest == plan.study_digest == plan.digest_at("alder")
    assert plan.at_site("alder") is plan


def test_a_certificate_that_says_less_than_the_release_is_not_admitted(studies):
    (_, _), (federation, _) = studies
    from sfumato_server.intake.claims import check_claims

    pool = pool_packages(federation.coordinator.root, federation.plan, Registry(federation.coordinator.root))
    plan = parse({**LATER, "joining": None}, Plan, "plan")
    with pytest.raises(VerificationError, match="other mechanisms"):
        check_claims(pool.certificates[NEW], plan)
    check_claims(pool.certificates[NEW], federation.plan)


def test_a_site_that_states_less_than_it_answered_is_left_out(studies, tmp_path):
    (_, _), (federation, _) = studies
    root = Path(shutil.copytree(federation.coordinator.root, tmp_path / "coordinator"))
    receipts = json.loads((root / "receipts.json").read_text())
    own = receipts[federation.plan.study_digest]
    assert "gan:2" in own[NEW]
    own[NEW] = own[NEW].replace("gan:2", "gan:1-2")
    (root / "receipts.json").write_text(json.dumps(receipts))
    pool = pool_packages(root, federation.plan, Registry(root))
    assert set(pool.sites) == STARTED
    assert pool.left_out == {NEW: "what it sent does not hold"}


def test_a_discriminator_a_site_is_there_for_the_one_that_joins(tmp_path):
    gan = {**LATER["stages"][1], "discriminators": "per-site"}
    federation = make_federation(
        tmp_path, {**LATER, "stages": [LATER["stages"][0], gan], "release": LATER["release"][:2]}
    )
    assert run(federation, ("gan", 1)) == "completed"
    [file] = federation.coordinator.root.glob("checkpoints/*/gan-0002.safetensors")
    with safe_open(file, framework="numpy") as state:
        kept = {name.partition("/")[0] for name in state.keys() if name.startswith("discriminator-")}  # noqa: SIM118
    assert kept == {f"discriminator-{site}" for site in STARTED | {NEW}}


@pytest.mark.parametrize("given", [False, True])
def test_a_stage_that_began_at_a_pinned_start_is_joined_by_who_was_given_it(tmp_path, given):
    flow = {**LATER["stages"][2], "rounds": 3}
    values = {**LATER, "stages": [LATER["stages"][0], flow], "release": [LATER["release"][2]], "utility": None}
    weights = pretrain(parse(values, Plan, "plan"), "flow", "textures", steps=2, patients=10)[0]
    flow["start"] = {"source": "textures", "sha256": fingerprint(weights)}
    federation = make_federation(tmp_path, values)
    keep_start(federation.coordinator.starts, federation.plan, save(weights))
    exchange = federation.exchange

    def joining(requests, *rest):
        exchange(requests, *rest)
        if federation.sent[-1][1].round == 1 and federation.sent[-1][1].stage == "flow" and NEW not in federation.sites:
            join(federation)
            if given:
                keep_start(federation.home(NEW).starts, federation.coordinator.plan(), save(weights))

    federation.exchange = joining
    assert run(federation) == "completed"
    paid = [(purpose, number) for _, purpose, number, _, _ in rows(federation, NEW)]
    root = federation.coordinator.root
    packages = set(pool_packages(root, federation.plan, Registry(root)).sites)
    if given:
        assert paid == [("flow", 2), ("flow", 3)]
        assert packages == STARTED | {NEW}
    else:
        assert paid == [], "it says so, and pays nothing"
        assert packages == STARTED


# the command


def test_the_coordinator_admits_a_site_by_a_command(tmp_path, monkeypatch, capsys):
    say, federation = speaker(monkeypatch, capsys), make_federation(tmp_path / "f", LATER)
    home, file = federation.coordinator.root, tmp_path / "dahlia.yaml"
    words = ["study", "admit", NEW, "--home", home, "--nominal-patients"]
    code, line, said = say("sfumato", *words, 300, "--plan", file)
    assert (code, line) == (0, "")
    plan = federation.coordinator.plan()
    assert plan.sites[NEW].nominal_patients == 300
    assert plan.digest_at(NEW) in said.replace("\n", "")
    assert yaml.safe_load(file.read_text())["sites"] == {NEW: {"nominal_patients": 300}}
    assert say("sfumato", *words, 300, "--plan", file)[0] == 0, "again is harmless"
    code, line, _ = say("sfumato", *words, 301, "--plan", file)
    assert (code, "300 nominal patients" in line) == (2, True)
    assert federation.coordinator.plan() == plan


def test_a_study_whose_sites_are_fixed_takes_no_more(tmp_path):
    federation = make_federation(tmp_path, PLAN)
    with pytest.raises(ConfigError, match="joining: later"):
        admit_site(federation.coordinator, NEW, 40)
    assert federation.coordinator.plan().sites.keys() == STARTED

"""Every anonymisation method in one study: charged before the records are read, released with its word, published."""

from __future__ import annotations

import copy
import csv
import shutil
from collections import Counter

import pytest
from support.federations import make_federation
from support.studies import PLAN, POLICY

from sfumato_client.anonymise import latents, patients, self_supervised
from sfumato_client.anonymise.self_supervised import ContrastiveNet
from sfumato_client.anonymise.style_net import encode_style_net
from sfumato_client.site import making as methods
from sfumato_client.site.home import SiteHome
from sfumato_common.accounting.events import Declared
from sfumato_common.errors import DataError
from sfumato_common.generators.gan import inversion
from sfumato_common.study.costs import GATE_VERDICT, release_events, study_events
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
QUICK = {"encoder_steps": 2, "refinement_steps": 1, "k": 2}
ITEMS = [
    {"method": "dp-sampling", "model": "flow", "images": 6},
    {"method": "k-same", "images": 5, **QUICK},
    {"method": "k-salsa", "images": 5, "steps": 2, "embedding_steps": 2, **QUICK},
    {"method": "linear-walk", "images": 5, "points": 2, **QUICK},
    {"method": "plan-walk", "images": 5, "points": 2, "steps": 2, "classifier_steps": 2, **QUICK},
    {"method": "dp-k-average", "images": 5, "radius": 4.0, "noise_multiplier": 1.0, **QUICK},
    {"method": "dp-glow", "images": 5, "radius": 60.0, "epsilon": 2.0},
    {"method": "cadp", "images": 5, "mechanism": "gaussian", "clip": "l2", "radius": 10.0, "noise_multiplier": 2.0,
     "label_epsilon": 1.0},
]  # fmt: skip
WORDS = {
    "dp-sampling": "formal",
    "dp-k-average": "formal",
    "dp-glow": "formal",
    "cadp": "formal",
    "plan-walk": "heuristic",
}
METHODS = [item["method"] for item in ITEMS]


def values(items=ITEMS) -> dict:
    return {**copy.deepcopy(PLAN), "release": items}


def policy(**terms) -> dict:
    gate = {**POLICY["release"]["gate"], "identity_share_limit": 1.0}
    release = {**POLICY["release"], "allowed_methods": METHODS, "smallest_group": 2, "gate": gate, **terms}
    return {**POLICY, "release": release}


MADE: Counter = Counter()
SHARED = {
    "encoder": (inversion, "learn_from_draws"),
    "inversion of the cohort": (patients, "_patients"),
    "codec": (latents.LatentCodec, "__init__"),
    "style net": (self_supervised, "train"),
}


def counted(name, real):
    def run(*args):
        MADE[name] += 1
        return real(*args)

    return run


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    federation = make_federation(tmp_path_factory.mktemp("methods"), values(), policy())
    with pytest.MonkeyPatch.context() as patch:
        for name, (where, what) in SHARED.items():
            patch.setattr(where, what, counted(name, getattr(where, what)))
        assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "completed"
    return federation


def test_a_release_trains_one_encoder_and_inverts_its_cohort_once(done):
    # five of the eight items are made in W space, two in the flow's latent space
    assert dict(MADE) == dict.fromkeys(SHARED, len(done.sites))


def test_the_ledger_holds_what_every_method_costs_and_discloses(done):
    plan = done.plan
    for site in done.sites:
        with done.home(site).open_ledger() as ledger:
            train = ledger.events("train", plan.digest)
            assert Counter(train) == Counter([*study_events(plan, "train"), GATE_VERDICT])
            assert train[-1] == GATE_VERDICT, "one bit, about the declared part"
            others = [
                event
                for item in plan.release
                if item.guarantee_level != "formal"
                for event in release_events(plan, item)
            ]
            assert train[-1 - len(others) : -1] == others, "formal images are made and let go before the others"
            assert ledger.unsettled_charges() == []


def test_the_published_set_says_of_every_image_which_method_made_it_and_its_word(done, tmp_path):
    plan, result = done.plan, done.result()
    pool = pool_packages(done.coordinator.root, plan, Registry(done.coordinator.root))
    publish(pool, plan, tmp_path / "out", load_authority(done.coordinator.root), {"exchanges": []}, result["utility"])
    verify_dataset(tmp_path / "out" / "published", None)
    rows = list(csv.DictReader((tmp_path / "out" / "published" / "labels.csv").open()))
    for item in ITEMS:
        made = [row for row in rows if row["method"] == item["method"]]
        assert len(made) == item["images"] * len(plan.sites)
        assert {row["guarantee"] for row in made} == {WORDS.get(item["method"], "syntactic")}
    report = (tmp_path / "out" / "published" / "report.html").read_text()
    assert all(method in report for method in METHODS)


def test_certificates_list_mechanisms_and_declared_disclosures(done):
    pool = pool_packages(done.coordinator.root, done.plan, Registry(done.coordinator.root))
    for certificate in pool.certificates.values():
        named = {line["mechanism"] for line in certificate.mechanisms["train"]}
        assert {"KAverageGaussian", "LocalLaplace", "LocalGaussian", "RandomisedResponse"} <= named
        declared = " ".join(line.what for line in certificate.declared)
        assert all(f"{method}: " in declared for method in ("k-same", "k-salsa", "linear-walk", "plan-walk"))
        assert "labels of records" not in declared, "a label is drawn, unless the plan and the policy say otherwise"


def test_an_embedding_that_the_site_keeps_reaches_the_method(done, tmp_path, monkeypatch):
    home = SiteHome(shutil.copytree(done.home(min(done.sites)).root, tmp_path / "home"))
    for file in home.root.glob(f"{home.ledger_file.name}*"):
        file.unlink()  # a method runs once a plan
    home.style_net.write_bytes(encode_style_net(ContrastiveNet(done.plan.image.size, 1)))
    jobs = []

    def caught(job):
        jobs.append(job)
        raise DataError("seen enough")

    monkeypatch.setattr(methods, "anonymise", caught)
    (item,) = (item for item in done.plan.release if item.method == "k-salsa")
    with home.open_ledger() as ledger, pytest.raises(DataError):
        methods.Maker(home, done.plan, home.policy(), "", {}, ledger)._make(item)
    assert set(jobs[0].release.style_net) == {
        name for name, _ in ContrastiveNet(done.plan.image.size, 1).named_parameters()
    }


def test_records_are_read_after_the_charge(tmp_path, monkeypatch):
    one = {"method": "dp-glow", "images": 5, "radius": 60.0, "epsilon": 2.0}
    federation = make_federation(tmp_path, values([one]), policy())
    seen = []

    def opened(home: SiteHome):
        with home.open_ledger() as ledger:
            seen.append(ledger.events("train", federation.plan.digest)[-1:])
        return original(home)

    original = SiteHome.open_store
    monkeypatch.setattr(SiteHome, "open_store", opened)
    run_study(federation.coordinator, federation, seed=1, classifier_steps=5)
    assert release_events(federation.plan, federation.plan.release[0]) in seen


def test_another_mechanism_than_was_charged_releases_nothing(tmp_path, monkeypatch):
    one = {"method": "dp-glow", "images": 5, "radius": 60.0, "epsilon": 2.0}
    federation = make_federation(tmp_path, values([one]), policy())
    monkeypatch.setattr(methods, "release_events", lambda plan, item: [Declared("nothing to see", 1)])
    assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "stopped"
    assert not list(federation.coordinator.root.glob("intake/*"))


def test_groups_smaller_than_the_policy_allows_are_refused(tmp_path):
    federation = make_federation(tmp_path, values([ITEMS[1]]), policy(smallest_group=3))
    assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "stopped"
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            assert ledger.entries() == []

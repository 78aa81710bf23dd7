"""A whole study whose one-shot releases leave sites as sums: what is asked, charged, published, and done again."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from support.federations import make_federation, with_keys
from support.plans import dp_sgd
from support.studies import PLAN, POLICY

from sfumato_client.ledger.check import check_package
from sfumato_client.site.admission import check_policy
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import Declared, GaussianRelease, SummedGaussian, normal_form
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import PolicyRefusal
from sfumato_common.generators.spectral.layout import Layout, features_of
from sfumato_common.generators.spectral.sums import centre_part, patient_weights
from sfumato_common.mechanisms.grid import grid_of
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.study.costs import study_events
from sfumato_common.study.summed import phases_of
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.publish.guarantee import Guarantee, pooled_costs
from sfumato_server.rounds import loop
from sfumato_server.rounds.strategies import choice as choice_module

NOISE = 0.6


def values(*later, radii="fixed", released="spectral", sites=None, quorum=3):
    made = copy.deepcopy(PLAN)
    made["stages"] = [{**made["stages"][0], "noise_multiplier": NOISE, "radii": radii}, *later]
    made["release"] = [{"model": released, "images": 12}]
    made["federation"] = {**made["federation"], "quorum": quorum}
    if sites:
        made["sites"] = {site: {"nominal_patients": 40} for site in sites}
    return made


def federation(root, made):
    policy = {**POLICY, "allowed_stages": [stage["kind"] for stage in made["stages"]], "secure_sum": "allowed"}
    return make_federation(root, with_keys(root, made), policy)


def train(study, cohort="train"):
    found = {}
    for site in study.sites:
        with study.home(site).open_ledger() as ledger:
            found[site] = [event for event in ledger.events(cohort) if not isinstance(event, Declared)]
    return found


@pytest.mark.parametrize("radii", ["fixed", "charged"])
def test_a_study_by_sums_is_published_and_its_ledgers_say_what_it_rests_on(tmp_path, radii):
    study = federation(tmp_path, values(radii=radii))
    plan = study.plan
    assert run_study(study.coordinator, study, seed=1) == "completed", study.result()["reason"]
    for events in train(study).values():
        assert events == study_events(plan, "train")
        # all phases together are one release of the stage's noise multiplier, among two honest sites
        (whole,) = normal_form(events)
        assert isinstance(whole, SummedGaussian)
        assert whole.noise_multiplier == pytest.approx(NOISE, rel=1e-9)
        assert whole.among == 2
    assert all(events == [SummedGaussian(2.0, 2)] for events in train(study, "holdout").values())
    assert not [request for _, request, _ in study.sent if request.kind in ("stage", "utility")]
    figure = study.result()["utility"]
    assert figure["sites"] == {}
    assert figure["withheld"] == []
    assert figure["pooled"]["auc"] is not None
    pool = pool_packages(study.coordinator.root, plan, Registry(study.coordinator.root))
    publish(pool, plan, tmp_path / "out", load_authority(study.coordinator.root), {"exchanges": []}, figure)
    verify_dataset(tmp_path / "out" / "published", None)
    page = (tmp_path / "out" / "published" / "report.html").read_text()
    assert "the coordinator with 1 of the other sites (charged)" in page
    stated = pool.certificates["alder"].summed
    costs = [stated.coordinator, pool.certificates["alder"].epsilon, stated.alone]
    assert costs[0].train.add_remove < costs[1].train.add_remove < costs[2].train.add_remove
    assert costs[2].train.add_remove == pytest.approx(epsilon([GaussianRelease(NOISE / 2**0.5)], 1e-5), rel=2e-3)
    home = study.home("alder")
    held = home.sums(home.accepted_plan(next(home.plans.glob("*.json")).stem))
    assert any(held.iterdir())
    home.leave(plan.study)
    assert not held.exists(), "keys of sums go with the study"


def test_the_certificate_of_sums_is_recomputed_from_the_exported_ledger(tmp_path):
    study = federation(tmp_path, values())
    assert run_study(study.coordinator, study, seed=1) == "completed"
    home = study.home("birch")
    with home.open_ledger() as ledger:
        export = ledger.export()
    package = next((home.releases).rglob("formal.sfumato")).read_bytes()
    report = check_package(export, package, load_identity(home.identity).signing_public)
    report.require()
    names = [figure.name for figure in report.figures]
    assert names.count("add/remove, own noise alone") == 2
    assert names.count("add/remove, sums against the coordinator") == 2


def test_what_the_coordinator_sums_up_is_what_sites_hold_with_the_noise_of_all_of_them(tmp_path, monkeypatch):
    """The pooled centre against the sites' own, in the clear: as far apart as three parts of the noise."""
    study = federation(tmp_path, values())
    seen = {}

    def note(run, name, folder, own, willing):
        seen[name] = sum_over_sites(run, name, folder, own, willing)
        return seen[name]

    sum_over_sites = loop.sum_over_sites
    monkeypatch.setattr(loop, "sum_over_sites", note)
    run_study(study.coordinator, study, seed=1, release=False)
    layout, phase = Layout.of(study.plan), phases_of(study.plan, "spectral")[0]
    total = np.zeros(phase.size)
    for site in study.sites:
        images, _, owners = study.home(site).open_store().cohort("train").everything()
        total += centre_part(layout, features_of(layout, images), patient_weights(owners))
    pooled = seen["spectral"]
    assert pooled.sites == tuple(sorted(study.sites))
    assert pooled.noise_multiplier == pytest.approx(NOISE * (3 / 2) ** 0.5)
    noise = pooled.sums["centre"] - total
    deviation = phase.noise_multiplier * phase.sensitivity * (3 / 2) ** 0.5
    assert 0.5 * deviation < noise.std() < 1.6 * deviation
    cells = pooled.sums["centre"] / grid_of(phase.sensitivity)
    assert (cells == np.rint(cells)).all()


def test_what_leaves_a_site_looks_like_nothing_until_it_is_summed(tmp_path):
    study = federation(tmp_path, values())
    run_study(study.coordinator, study, seed=1, release=False)
    masked = [reply.arrays["masked"] for _, request, reply in study.sent if request.kind == "sum-values"]
    assert len(masked) == 9
    for words in masked:
        # of plain cells the upper bits would be all 0 or all 1
        assert len(set((words.view(np.uint64) >> np.uint64(60)).tolist())) > 8


@pytest.mark.parametrize("step", ["sum-shares", "sum-values", "sum-consent", "sum-unmask"])
def test_a_site_that_falls_in_the_middle_of_a_stage_costs_its_part_and_no_more(tmp_path, monkeypatch, step):
    sites = ("alder", "birch", "cedar", "dogwood", "elm")
    study = federation(tmp_path, values(sites=sites, quorum=4))
    exchange = study.exchange

    def silent(requests, deadline, on_reply, waited_for):
        asked = dict(requests)
        if asked and next(iter(asked.values())).kind == step and next(iter(asked.values())).round in (1, 2):
            asked.pop("birch", None)
        exchange(asked, deadline, on_reply, waited_for & set(asked))

    monkeypatch.setattr(study, "exchange", silent)
    assert run_study(study.coordinator, study, seed=1, release=False) == "completed", study.result()["reason"]
    charged = len(train(study)["birch"])
    assert charged == (0 if step in ("sum-shares", "sum-values") else len(study_events(study.plan, "train")))


def test_a_run_that_starts_again_goes_on_and_charges_nothing_twice(tmp_path, monkeypatch):
    study = federation(tmp_path, values())
    answer = study.answer

    def lose(site, request):
        reply = answer(site, request)
        if site == "cedar" and request.kind == "sum-consent" and request.round == 2:
            study.down.update(study.sites)
            raise KeyboardInterrupt
        return reply

    monkeypatch.setattr(study, "answer", lose)
    with pytest.raises(KeyboardInterrupt):
        run_study(study.coordinator, study, seed=1, release=False)
    monkeypatch.setattr(study, "answer", answer)
    study.down.clear()
    before = {site: len(events) for site, events in train(study).items()}
    assert set(before.values()) == {2}
    assert run_study(study.coordinator, study, seed=1, release=False) == "completed", study.result()["reason"]
    assert all(events == study_events(study.plan, "train") for events in train(study).values())


def test_choice_and_embedding_leave_as_sums_too(tmp_path, monkeypatch):
    monkeypatch.setattr(choice_module, "_STEPS", 5)
    embedding = {"kind": "embedding", "noise_multiplier": 1.0, "generator_steps": 3, "width": 8}
    choice = {"kind": "choice", "noise_multiplier": 0.9, "bins": 4, "images": 60}
    flow = dp_sgd(kind="flow", learning_rate=0.0001, levels=1, steps_per_level=2, hidden=8)
    study = federation(tmp_path, {**values(embedding, flow, choice, released="best"), "utility": None})
    assert run_study(study.coordinator, study, seed=1, release=False) == "completed", study.result()["reason"]
    for events in train(study).values():
        assert SummedGaussian(1.0, 2) in events
        assert SummedGaussian(0.9, 2) in events
    stages = {request.stage for _, request, _ in study.sent if request.kind == "stage"}
    assert stages == {"flow"}
    assert json.loads(study.coordinator.status_file.read_text())["chosen"] in ("spectral", "embedding", "flow")


def test_a_site_whose_policy_counts_on_no_other_takes_no_part(tmp_path):
    study = federation(tmp_path, values())
    home = study.home("alder")
    policy = (home.root / "policy.yaml").read_text()
    (home.root / "policy.yaml").write_text(policy.replace("secure_sum: allowed", "secure_sum: refused"))
    with pytest.raises(PolicyRefusal, match="counts on other sites' noise"):
        check_policy(study.plan, home.policy())
    run_study(study.coordinator, study, seed=1, release=False)
    assert "of the 3 sites of the quorum" in study.result()["reason"]
    assert train(study)["alder"] == []


def test_a_site_gives_no_single_answer_to_a_stage_that_is_summed(tmp_path):
    study = federation(tmp_path, values())
    for kind, stage, number in (("stage", "spectral", 1), ("utility", "", 0)):
        reply = study.sites["alder"].handle(Request(PROTOCOL, study.plan.digest, kind, stage, number, {}))
        assert (reply.status, reply.code) == ("refused", "policy-refused")
    assert train(study)["alder"] == []


def test_a_patient_of_two_hospitals_is_told_the_price_of_two_patients(tmp_path):
    """One sum, one noise, both contributions: adding the sites' epsilons at twice delta would promise too much."""
    study = federation(tmp_path, values())
    home = study.home("alder")
    with home.open_ledger() as ledger:
        stated = ledger.certificate(study.plan, noise="secure")
    assert "moves the same sum twice" in stated.covers
    assert "pays the SUM" not in stated.covers
    one, delta = NOISE, study.plan.privacy.delta
    twice = epsilon([GaussianRelease(one / 2.0)], delta)  # a shift of two sensitivities
    assert stated.reach.pair == pytest.approx(twice, rel=1e-2)
    assert stated.reach.pair >= twice - 1e-3
    lines = pooled_costs([Guarantee(("alder", "birch", "cedar"), stated, ())])
    assert lines[1].add_remove == stated.reach.pair
    assert lines[1].delta == delta

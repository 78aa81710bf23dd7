"""A whole study that releases the best model: what is asked, charged, released and told, and what a restart does."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from support.federations import make_federation
from support.studies import PLAN, POLICY

from sfumato_common.accounting.events import Declared, GaussianRelease
from sfumato_common.exchanges.choice import HISTOGRAMS
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.study.costs import study_events
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.rounds.strategies import choice as choice_module

SIGMA = 0.9


@pytest.fixture
def federation(tmp_path, monkeypatch):
    monkeypatch.setattr(choice_module, "_STEPS", 5)
    values = copy.deepcopy(PLAN)
    values["stages"] = [values["stages"][0], values["stages"][2]]
    values["stages"].append({"kind": "choice", "noise_multiplier": SIGMA, "bins": 4, "images": 60})
    # the answers below speak of many patients
    values["sites"] = {site: {"nominal_patients": 400} for site in values["sites"]}
    values["release"] = [{"model": "best", "images": 12}]
    values["utility"] = None
    policy = {**POLICY, "allowed_stages": ["spectral", "flow", "choice"]}
    return make_federation(tmp_path, values, policy)


def favour_the_flow(job):
    """Answer as a site of many patients would whom the flow's classifier tells apart and the spectral one does not."""
    counts = np.full((2, 2, 4), 100.0)
    counts[1] = [[400.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 400.0]]
    noisy = job.recorder.gaussian(counts, 2**0.5, SIGMA)
    return {HISTOGRAMS: noisy.astype(np.float32)}


@pytest.mark.parametrize("winner", ["spectral", "flow"])
def test_the_best_model_and_no_other_is_released_at_the_price_of_one_look(federation, tmp_path, monkeypatch, winner):
    if winner == "flow":
        monkeypatch.setattr("sfumato_client.training.choice.score_candidates", favour_the_flow)
    assert run_study(federation.coordinator, federation, seed=1) == "completed", federation.result()["reason"]
    plan, result = federation.plan, federation.result()
    assert result["choice"]["winner"] == winner
    pool = pool_packages(federation.coordinator.root, plan, Registry(federation.coordinator.root))
    assert {item.facts.model for item in pool.items} == {winner}
    assert len(pool.items) == 12 * len(plan.sites)
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            train = [event for event in ledger.events("train", plan.digest) if not isinstance(event, Declared)]
        assert train == study_events(plan, "train")
        assert train.count(GaussianRelease(SIGMA)) == 1
        assert "chosen by a charged look" in pool.certificates[site].covers
    asked = [request for _, request, _ in federation.sent if request.kind == "make"]
    assert {name.partition(":")[0] for request in asked for name in {*request.arrays, *request.held}} == {
        "spectral",
        winner,
    }
    out = tmp_path / "out"
    run_info = {"exchanges": [], "choice": result["choice"]}
    publish(pool, plan, out, load_authority(federation.coordinator.root), run_info, None)
    verify_dataset(out / "published", None)
    page = (out / "published" / "report.html").read_text()
    assert "How the model was chosen" in page
    assert f"{winner}: chosen by a charged look" in page
    status = json.loads(federation.coordinator.status_file.read_text())
    assert status["chosen"] == winner


def test_a_second_set_of_classifiers_is_not_scored_at_the_price_of_the_first(federation):
    assert run_study(federation.coordinator, federation, seed=1) == "completed"
    site, request, reply = next(item for item in federation.sent if item[1].stage == "choice")
    assert federation.sites[site].handle(request).arrays[HISTOGRAMS].tolist() == reply.arrays[HISTOGRAMS].tolist()
    other = {name: value + np.float32(0.1) for name, value in request.arrays.items()}
    with federation.home(site).open_ledger() as ledger:
        before = len(ledger.events("train", federation.plan.digest))
    again = federation.sites[site].handle(Request(PROTOCOL, federation.plan.digest, "stage", "choice", 1, other))
    with federation.home(site).open_ledger() as ledger:
        assert again.status == "refused" or len(ledger.events("train", federation.plan.digest)) == before + 1
    short = {name: value for name, value in request.arrays.items() if not name.startswith("flow:")}
    refused = federation.sites[site].handle(Request(PROTOCOL, federation.plan.digest, "stage", "choice", 1, short))
    assert refused.status == "refused"

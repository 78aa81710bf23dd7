"""A study whose only model is the appearance release, and one that chooses between it and the spectral model."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from support.federations import make_federation
from support.studies import PLAN, POLICY

from sfumato_client.site.admission import check_policy
from sfumato_common.strict import load_yaml
from sfumato_common.study.costs import study_events
from sfumato_common.study.forecast import forecast
from sfumato_common.study.load import load_plan
from sfumato_common.study.policy import Policy
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.rounds.draws import draw_model
from sfumato_server.rounds.strategies import choice

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
KIND, IMAGES = "appearance", 12
APPEARANCE = {"kind": KIND, "noise_multiplier": 0.5, "phantoms": 8}
CHOICE = {"kind": "choice", "noise_multiplier": 2.0, "bins": 4, "images": 60}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside spectral"])
def test_it_trains_releases_and_publishes(tmp_path, monkeypatch, beside):
    monkeypatch.setattr(choice, "_STEPS", 5)
    values = copy.deepcopy(PLAN)
    values |= {
        "privacy": {"epsilon": 60.0, "delta": 1.0e-5},
        "stages": [values["stages"][0], APPEARANCE, CHOICE] if beside else [{**APPEARANCE, "by_site": True}],
        "release": [{"model": KIND, "images": IMAGES}],
        "utility": None,
    }
    federation = make_federation(tmp_path, values, {**POLICY, "allowed_stages": ["spectral", KIND, "choice"]})
    outcome = run_study(federation.coordinator, federation, seed=1, classifier_steps=5)
    plan, home = federation.plan, federation.coordinator.root
    assert outcome == "completed", federation.result()["reason"]
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            assert ledger.events("train", plan.digest)[: len(plan.stages)] == study_events(plan, "train")
    pool = pool_packages(home, plan, Registry(home))
    published = publish(pool, plan, tmp_path / "out", load_authority(home), {"exchanges": []}, None)
    assert "is a drawn phantom&#39;s mixed with noise: it belongs to no patient" in published.report.read_text()
    assert verify_dataset(published.folder, None).images == IMAGES * len(federation.sites)
    drawn = draw_model(next(home.rglob(f"{KIND}-model.safetensors")), plan, "", "", "", 4, 0)
    assert len(np.unique(drawn.images, axis=0)) == 4
    if beside:
        assert {row["model"] for row in federation.result()["choice"]["candidates"]} == {"spectral", KIND}


def test_the_shipped_plan_costs_what_it_says_and_passes_the_shipped_policy():
    plan, policy = load_plan(CONFIGS / "chest-xray.yaml"), load_yaml(CONFIGS / "policy.yaml", Policy)
    cost = forecast(plan, plan.privacy.delta)
    assert max(cost.epsilon_train, cost.epsilon_holdout) <= min(plan.privacy.epsilon, policy.budget.epsilon)
    for site in plan.sites:
        check_policy(plan, policy.model_copy(update={"site": site}))
    assert plan.base == "appearance" and plan.by_site


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("alignment", "channels"), [("chest", 1), ("fundus", 3)])
def test_a_study_at_512_pixels(tmp_path, alignment, channels):
    """All of it: homes, training, release, gate, publishing and the offline check."""
    values = copy.deepcopy(PLAN)
    values |= {
        "image": {"size": 512, "channels": channels},
        "sites": {"alder": values["sites"]["alder"]},
        "federation": {**values["federation"], "quorum": 1, "round_deadline_s": 600},
        "privacy": {"epsilon": 60.0, "delta": 1.0e-5},
        "stages": [{**APPEARANCE, "alignment": alignment, "detail": "phantom"}],
        "release": [{"model": KIND, "images": 4}],
        "utility": {"bins": 4, "noise_multiplier": 2.0},
    }
    federation = make_federation(tmp_path, values, {**POLICY, "allowed_stages": [KIND]})
    outcome = run_study(federation.coordinator, federation, seed=1, classifier_steps=2)
    plan, home = federation.plan, federation.coordinator.root
    assert outcome == "completed", federation.result()["reason"]
    published = publish(
        pool_packages(home, plan, Registry(home)), plan, tmp_path / "out", load_authority(home), {"exchanges": []}, None
    )
    assert verify_dataset(published.folder, None).images == 4 * len(federation.sites)

"""The choice stage at the coordinator: the same bytes after a restart, what is kept, and what is reported."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from support.plans import dp_sgd
from tests.support.plans import small_plan

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.exchanges.choice import HISTOGRAMS
from sfumato_common.generators.spectral.layout import COUNT_WEIGHT
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.metrics.choice import classifiers_schema
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import choice as choice_module
from sfumato_server.rounds.strategies import strategy_of
from sfumato_server.rounds.strategies.choice import ChoiceStrategy, choice_report

DP = dp_sgd()
VALUES = small_plan(
    {"kind": "flow", "steps_per_level": 1, "hidden": 8, **DP},
    {"kind": "choice", "noise_multiplier": 1.0, "bins": 8, "images": 60},
    released="best",
    sites={"alder": 100, "birch": 300},
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse(VALUES, Plan, "test")


@pytest.fixture(scope="module")
def released(plan):
    rng = np.random.default_rng(0)
    reply = {
        name: (0.1 * rng.normal(size=spec.shape)).astype(np.float32)
        for name, spec in EXCHANGES["spectral"].returned(plan).items()
    }
    reply["sums"][:, 0] += 100 * COUNT_WEIGHT
    strategy = strategy_of(plan, plan.stage("spectral"), {})
    strategy.absorb(1, {"alder": reply}, torch.Generator())
    spectral = strategy.released()
    return {"spectral": spectral, "flow": {**spectral, **to_arrays("flow", initial_model("flow", plan))}}


def histograms(plan, better: bool) -> dict[str, np.ndarray]:
    """Scores of 400 patients a class: a fair coin's from the spectral classifier; perfect ones from the flow's."""
    counts = np.full(EXCHANGES["choice"].returned(plan)[HISTOGRAMS].shape, 50.0, np.float32)
    if better:
        counts[1] = 0.0
        counts[1, 0, 0] = counts[1, 1, -1] = 400.0
    return {HISTOGRAMS: counts}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(choice_module, "_STEPS", 4)


@pytest.fixture
def strategy(plan, released, quick):
    strategy = ChoiceStrategy(plan, plan.stage("choice"), released)
    strategy.outbound(1, "alder")
    return strategy


def test_every_site_gets_the_plans_classifiers_and_the_same_after_a_restart(plan, released, strategy):
    first = strategy.outbound(1, "alder")
    schema = classifiers_schema(plan)
    assert first.keys() == schema.keys()
    assert all(schema[name].matches(value) for name, value in first.items())
    torch.manual_seed(12345)
    again = ChoiceStrategy(plan, plan.stage("choice"), released).outbound(1, "birch")
    assert all((again[name] == value).all() for name, value in first.items())


@pytest.mark.parametrize(("better", "winner"), [(True, "flow"), (False, "spectral")])
def test_the_winner_is_read_off_the_histograms_and_survives_a_checkpoint(plan, released, strategy, better, winner):
    with pytest.raises(FederationError):
        strategy.choice()
    strategy.absorb(1, {site: histograms(plan, better) for site in plan.sites}, torch.Generator())
    assert strategy.choice().winner == winner
    other = ChoiceStrategy(plan, plan.stage("choice"), released)
    other.restore({name: value.copy() for name, value in strategy.state().items()})
    assert other.choice() == strategy.choice()
    assert plan.candidates[int(other.released()["winner"][0])] == winner


def test_a_flow_that_is_no_longer_near_the_released_moments_is_not_chosen(plan, released, quick):
    bright = {**released["flow"], "spectral/mean": released["spectral"]["spectral/mean"] + np.float32(0.5)}
    strategy = ChoiceStrategy(plan, plan.stage("choice"), {**released, "flow": bright})
    strategy.outbound(1, "alder")
    strategy.absorb(1, {"alder": histograms(plan, better=True)}, torch.Generator())
    assert strategy.choice().winner == "spectral"


def test_replies_of_another_form_are_refused(plan, strategy):
    bad = {HISTOGRAMS: histograms(plan, better=True)[HISTOGRAMS][:1]}
    with pytest.raises(VerificationError):
        strategy.absorb(1, {"alder": bad}, torch.Generator())


def test_the_report_names_every_candidate_with_its_interval(plan, strategy):
    strategy.absorb(1, {site: histograms(plan, better=True) for site in plan.sites}, torch.Generator())
    report = json.loads(json.dumps(choice_report(plan, strategy.choice())))
    assert report["winner"] == "flow"
    assert report["sites"] == ["alder", "birch"]
    assert [item["model"] for item in report["candidates"]] == ["spectral", "flow"]
    for item in report["candidates"]:
        assert item["low"] <= item["auc"] <= item["high"]

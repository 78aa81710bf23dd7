"""One budget: what resolved noise costs against what was promised, shares against their definition, and refusals."""

from __future__ import annotations

import copy
import math

import pytest
import yaml
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian, get_sigma_gaussian

from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.errors import ConfigError
from sfumato_common.strict import load_yaml, parse
from sfumato_common.study.budget import BELOW, auto_shares
from sfumato_common.study.costs import study_events
from sfumato_common.study.load import load_plan, load_resolved_plan, plan_text
from sfumato_common.study.plan import Plan

DP = {"sampling_rate": 0.1, "clipping_norm": 1.0, "learning_rate": 1e-3}
SPECTRAL = {"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0}
EMBEDDING = {"kind": "embedding"}
GAN = {"kind": "gan", "rounds": 2, "local_steps": 5, **DP}
FLOW = {"kind": "flow", "rounds": 1, "local_steps": 7, **DP, "sampling_rate": 0.05}
CHOICE = {"kind": "choice"}
PLAN = {
    "study": "shared",
    "image": {"size": 16},
    "labels": ["normal", "abnormal"],
    "sites": {"north": {"nominal_patients": 1000}, "south": {"nominal_patients": 1500}},
    "privacy": {"epsilon": 1.0, "delta": 1e-5},
    "budget": {"spectral": 0.5, "gan": 0.3, "flow": 0.2},
    "stages": [SPECTRAL, GAN, FLOW],
    "release": [{"model": "spectral", "images": 10}],
    "federation": {"quorum": 1},
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "study.yaml"
    path.write_text(yaml.safe_dump(PLAN))
    return load_plan(path)


@pytest.fixture
def written(tmp_path):
    def write(value=None, **changes):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**copy.deepcopy(value or PLAN), **changes}))
        return path

    return write


def spent(plan: Plan) -> float:
    return epsilon(study_events(plan, "train"), plan.privacy.delta)


@pytest.mark.parametrize(
    ("stages", "budget", "target"),
    [
        ([SPECTRAL], {"spectral": 1.0}, 10.0),
        ([SPECTRAL, GAN], {"spectral": 0.9, "gan": 0.1}, 3.0),
        ([SPECTRAL, GAN, FLOW], {"spectral": 0.4, "gan": 0.2, "flow": 0.4}, 1.0),
        ([SPECTRAL, GAN, CHOICE], "auto", 1.0),
    ],
)
def test_a_resolved_plan_costs_what_it_says_and_never_more(written, stages, budget, target):
    plan = load_plan(written(stages=stages, budget=budget, privacy={"epsilon": target, "delta": 1e-5}))
    assert (1 - BELOW) * target <= spent(plan) <= target


def test_shares_are_of_mu_squared_each_stage_by_itself(plan):
    mu = 1 / get_sigma_gaussian(1.0, 1e-5)
    factor = plan.spectral.noise_multiplier * mu * math.sqrt(0.5)
    # subsampled steps compose better than their shares of mu squared say, never worse by more than the bisection
    assert 0.85 < factor < 1.01
    for stage, share in zip(plan.stages, (0.5, 0.3, 0.2), strict=True):
        own = stage.model_copy(update={"noise_multiplier": stage.noise_multiplier / factor})
        wanted = get_epsilon_gaussian(1 / (mu * math.sqrt(share)), 1e-5)
        assert epsilon([own.event] * stage.rounds, 1e-5) == pytest.approx(wanted, rel=BELOW)


def test_one_shot_stages_alone_split_mu_squared_exactly(written):
    value = {**PLAN, "stages": [SPECTRAL, EMBEDDING], "budget": {"spectral": 0.8, "embedding": 0.2}}
    plan = load_plan(written(value))
    noise = [stage.noise_multiplier for stage in plan.stages]
    assert noise[1] / noise[0] == pytest.approx(2.0, rel=1e-4)
    assert sum(sigma**-2 for sigma in noise) == pytest.approx(get_sigma_gaussian(1.0, 1e-5) ** -2, rel=0.01)
    assert all(isinstance(event, GaussianRelease) for event in study_events(plan, "train"))


def test_more_of_the_budget_is_less_noise(written):
    little, much = (
        load_plan(written(stages=[SPECTRAL, GAN], budget={"spectral": 1 - share, "gan": share})) for share in (0.2, 0.7)
    )
    assert much.stage("gan").noise_multiplier < little.stage("gan").noise_multiplier
    assert much.spectral.noise_multiplier > little.spectral.noise_multiplier


def test_a_resolved_plan_is_the_same_plan_everywhere(written, tmp_path):
    plan = load_plan(written(stages=[SPECTRAL, GAN], budget="auto"))
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(plan_text(plan))
    for load in (load_plan, load_resolved_plan, lambda path: load_yaml(path, Plan)):
        assert load(resolved) == plan
        assert load(resolved).digest == plan.digest
    assert plan.budget == auto_shares(plan)  # written out: a later version's rule cannot change it


def test_sites_refuse_what_is_not_resolved(written):
    with pytest.raises(ConfigError, match=r"study\.yaml: 'budget' is not resolved .* 'sfumato plan resolve' writes"):
        load_resolved_plan(written())


def test_a_plan_without_a_budget_is_taken_as_it_is(written):
    stages = [{**stage, "noise_multiplier": 2.0} for stage in (SPECTRAL, GAN, FLOW)]
    path = written(stages=stages, budget=None)
    assert load_plan(path) == load_resolved_plan(path) == load_yaml(path, Plan)
    with pytest.raises(ConfigError, match=r"missing key 'stages\.1\.noise_multiplier'"):
        load_plan(written(stages=[stages[0], GAN, stages[2]], budget=None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": {"spectral": 0.5, "gan": 0.5}}, "no share for stage 'flow'"),
        ({"budget": {"spectral": 0.4, "gan": 0.3, "flow": 0.2, "choice": 0.1}}, "'choice', which is no stage"),
        ({"budget": {"spectral": 0.5, "gan": 0.3, "flow": 0.3}}, "add up to 1.1, not to 1"),
        ({"stages": [SPECTRAL, {**GAN, "noise_multiplier": 1.0}, FLOW]}, "leave out noise_multiplier of stage 'gan'"),
        ({"privacy": {"epsilon": 3000.0, "delta": 1e-5}}, "next to no noise"),
        ({"stages": "none"}, "'stages'"),
        ({"budget": "all"}, "'budget"),
        ({"private": False}, "private: false"),
    ],
)
def test_a_budget_that_cannot_be_shared_out_is_refused(written, changes, words):
    with pytest.raises(ConfigError, match=words):
        load_plan(written(**changes))


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("by", [0.9, 1.1])
def test_noise_that_somebody_changed_is_noticed(plan, written, at, by):
    value = plan.model_dump(mode="json")
    value["stages"][at]["noise_multiplier"] *= by
    with pytest.raises(ConfigError, match="resolve it again"):
        load_resolved_plan(written(value))


def test_noise_moved_between_stages_is_noticed_though_the_total_holds(plan, written):
    with pytest.raises(ConfigError, match="is not its share of the budget"):
        load_resolved_plan(written(plan.model_dump(mode="json"), budget={"spectral": 0.5, "gan": 0.2, "flow": 0.3}))


def shares_of(stages, patients):
    stated = [{**stage, "noise_multiplier": 1.0} for stage in stages]
    sites = {"one": {"nominal_patients": patients // 2}, "two": {"nominal_patients": patients // 2}}
    return auto_shares(parse({**PLAN, "budget": None, "stages": stated, "sites": sites}, Plan, "x"))


def test_the_public_rule():
    assert shares_of([SPECTRAL], 100) == {"spectral": 1.0}
    assert shares_of([SPECTRAL, GAN], 5000) == {"spectral": 0.5, "gan": 0.5}
    assert shares_of([SPECTRAL, EMBEDDING, GAN, FLOW], 5000) == dict.fromkeys(
        ("spectral", "embedding", "gan", "flow"), 0.25
    )
    small, large = (shares_of([SPECTRAL, GAN, CHOICE], n) for n in (400, 80_000))
    assert small["spectral"] > 0.85 > 0.1 > large["spectral"]
    assert small["choice"] == large["choice"] == 0.05
    assert sum(small.values()) == pytest.approx(1.0, abs=1e-3)


def test_nothing_is_spent_on_a_choice_that_can_only_say_no_figure(written):
    """Two models, 16 bins: at sigma s a side shows from 10 + 5 s sqrt(2 x 16) patients on, a site from twice that."""
    stated = [{**stage, "noise_multiplier": 10.0} for stage in (SPECTRAL, GAN, CHOICE)]
    needed = 2 * (10 + 5 * 10 * math.sqrt(2 * 16))
    few, enough = ({"one": {"nominal_patients": math.ceil(needed) + more}} for more in (-1, 0))
    release = [{"model": "best", "images": 10}]
    path = written(stages=stated, budget=None, sites=few, release=release)
    for load in (load_plan, load_resolved_plan):
        with pytest.raises(ConfigError, match=r"'choice' can only say 'no figure'.* 586 nominal patients"):
            load(path)
    assert load_plan(written(stages=stated, budget=None, sites=enough, release=release)).chooses
    trimmed = [*stated[:2], {**stated[2], "trimmed": 1}]
    sites = {name: enough["one"] for name in ("one", "two")} | {"three": few["one"]}
    with pytest.raises(ConfigError, match="2 of the 3 sites"):
        load_plan(written(stages=trimmed, budget=None, sites=sites, release=release, federation={"quorum": 3}))
    shared = {"spectral": 0.6, "gan": 0.35, "choice": 0.05}
    with pytest.raises(ConfigError, match="leave the stage out, with its share of the budget"):
        load_plan(written(stages=[SPECTRAL, GAN, CHOICE], budget=shared, sites=few, release=release))

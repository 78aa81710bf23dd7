"""Updates joined so that few dishonest sites cannot lead the mean away, and what it costs when all are honest."""

from __future__ import annotations

import copy
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
from support.plans import dp_sgd
from support.small_study import VALUES

from sfumato_common.errors import ConfigError, FederationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.displacement import update_displacement, within_displacement
from sfumato_common.generators.flow.displacement import BETAS
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.settings import ServerOptimiser
from sfumato_common.generators.starts import max_displacement
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.metrics.choice import decide
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import combining
from sfumato_server.rounds.strategies.averaging import move_start
from sfumato_server.rounds.strategies.optimisers import ServerStep

SITES = 5


def updates(seed: int = 0, sites: int = SITES) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        {"a": rng.normal(1.0, 0.1, (3, 4)).astype(np.float32), "b": rng.normal(-1.0, 0.1, 7).astype(np.float32)}
        for _ in range(sites)
    ]


def shares(sites: int = SITES) -> np.ndarray:
    return np.arange(1.0, sites + 1.0) / np.arange(1.0, sites + 1.0).sum()


def combine_updates(settings, values, weights):
    """A few coordinates at a time, or all: the same but for rounding, as a product may be fused or not."""
    updates = [partial(Plain, each) for each in values]
    found = combining.combine_updates(settings, updates, weights)
    with patch.object(combining, "_VALUES", 5 * len(values)):
        parts = combining.combine_updates(settings, updates, weights)
    for name, value in found.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-12, atol=1e-12)
    return found


class Plain(dict):
    """Changes by name that were never packed."""

    def part(self, name, first, last):
        return self[name].ravel()[first:last]


def settings(combine: str, **terms) -> ServerOptimiser:
    return ServerOptimiser(combine=combine, **terms)


def test_a_trimmed_mean_is_the_mean_of_what_is_left():
    values = [{"a": np.array([v], np.float32)} for v in (5.0, -3.0, 1.0, 2.0, 9.0)]
    found = combine_updates(settings("trimmed-mean"), values, np.full(5, 0.2))
    assert found["a"] == pytest.approx((5.0 + 1.0 + 2.0) / 3)
    found = combine_updates(settings("trimmed-mean", trimmed=2), values, np.full(5, 0.2))
    assert found["a"] == pytest.approx(2.0)
    weighted = combine_updates(settings("trimmed-mean"), values, np.array([0.5, 0.2, 0.1, 0.1, 0.1]))
    assert weighted["a"] == pytest.approx((0.5 * 5.0 + 0.1 * 1.0 + 0.1 * 2.0) / 0.7)


@pytest.mark.parametrize("evil", [1e3, -1e3, 0.0])
def test_no_dishonest_minority_leaves_the_honest_range_of_a_trimmed_mean(evil):
    honest = updates()
    for place in range(SITES):
        attacked = copy.deepcopy(honest)
        for value in attacked[place].values():
            value[...] = evil
        found = combine_updates(settings("trimmed-mean"), attacked, shares())
        for name, value in found.items():
            rest = np.stack([each[name] for at, each in enumerate(honest) if at != place])
            assert (value >= rest.min(axis=0) - 1e-6).all() and (value <= rest.max(axis=0) + 1e-6).all()
            mean = combine_updates(settings("mean"), attacked, shares())[name]
            outside = (mean < rest.min(axis=0) - 0.05) | (mean > rest.max(axis=0) + 0.05)
            assert outside.all() or evil == 0.0, "the plain mean leaves it"


def test_a_norm_bound_leaves_the_longest_update_as_long_as_the_median_one():
    honest = updates()
    attacked = copy.deepcopy(honest)
    for value in attacked[4].values():
        value *= -1e6
    found = combine_updates(settings("norm-bound"), attacked, np.full(5, 0.2))
    others = combine_updates(settings("mean"), honest[:4], np.full(4, 0.2))
    length = np.sort([np.sqrt(sum((v**2).sum() for v in each.values())) for each in honest])[2]
    moved = np.sqrt(sum(((found[name] - others[name]) ** 2).sum() for name in found))
    assert moved == pytest.approx(0.2 * length, rel=0.15)
    two = combine_updates(settings("norm-bound"), [attacked[0], attacked[4]], np.full(2, 0.5))
    assert np.abs(two["a"]).max() < 2.0, "of two sites the longer one is not the measure"


def test_among_equals_all_are_the_mean():
    same = [updates(1)[0]] * SITES
    for combine in ("mean", "trimmed-mean", "norm-bound"):
        found = combine_updates(settings(combine), same, shares())
        assert all(np.allclose(found[name], same[0][name], atol=1e-6) for name in found)


@pytest.mark.parametrize("combine", ["mean", "trimmed-mean", "norm-bound"])
@pytest.mark.parametrize("kind", ["average", "momentum", "adam"])
def test_updates_at_the_bound_lead_nowhere_that_honest_sites_refuse(combine, kind):
    server = {"kind": kind, "combine": combine, "learning_rate": 1.0 if kind != "adam" else 0.01}
    plan = parse(plan_values([dp_sgd(kind="flow", rounds=4, server=server)], 3), Plan, "plan")
    stage, schema = plan.stage("flow"), weights_schema(plan, {"flow": NETWORKS["flow"]})
    bound = np.float32(0.995 * update_displacement(stage, BETAS))
    weights = {name: np.ones(spec.shape, np.float32) for name, spec in schema.items()}
    far = {name: value + bound for name, value in weights.items()}
    step, replies = ServerStep(stage.server), {site: {UPDATE: pack_update(weights, far)} for site in plan.sites}
    for reply in replies.values():
        EXCHANGES["flow"].check_reply(plan, "site-0", reply)
    for _ in range(stage.rounds):
        after = move_start(plan, weights, replies, step)
        assert within_displacement(weights, after, max_displacement(stage, "flow", 1))
        weights = after


def test_too_few_replies_cannot_be_trimmed():
    with pytest.raises(FederationError, match="needs 3 sites; 2 answered"):
        combine_updates(settings("trimmed-mean"), updates(sites=2), np.full(2, 0.5))


@pytest.mark.parametrize(
    ("stages", "quorum", "match"),
    [
        ([dp_sgd(kind="flow", server={"combine": "trimmed-mean"})], 2, "'trimmed' of stage 'flow'.*at least 3"),
        ([dp_sgd(kind="flow", server={"combine": "trimmed-mean", "trimmed": 2})], 4, "at least 5"),
        ([dp_sgd(kind="flow"), {"kind": "choice", "noise_multiplier": 2.0, "trimmed": 1}], 2, "of stage 'choice'"),
        (
            [dp_sgd(kind="gan", discriminators="per-site", server={"combine": "norm-bound"})],
            5,
            "no updates are joined",
        ),
    ],
)
def test_a_plan_whose_quorum_leaves_nothing_to_trim_is_refused(stages, quorum, match):
    values = plan_values(stages, quorum)
    with pytest.raises(ConfigError, match=match):
        parse(values, Plan, "plan")


def plan_values(stages, quorum: int) -> dict:
    kind = next(stage["kind"] for stage in stages)
    return {
        **copy.deepcopy(VALUES),
        "stages": [VALUES["stages"][0], *stages],
        "sites": {f"site-{n}": {"nominal_patients": 100} for n in range(5)},
        "release": [{"model": kind, "images": 4}],
        "federation": {"quorum": quorum},
    }


def histograms(model: float, floor: float) -> np.ndarray:
    """[2, 2, 8]: noiseless counts whose AUCs are about these."""
    found = np.zeros((2, 2, 8))
    for place, auc in enumerate((floor, model)):
        found[place, 0, 3] = 50.0
        found[place, 1, 5], found[place, 1, 1] = 50.0 * auc, 50.0 * (1.0 - auc)
    return found


@pytest.mark.parametrize("evil", ["force", "forbid"])
def test_one_site_neither_forces_nor_forbids_a_trimmed_choice(evil):
    stages = [dp_sgd(kind="flow"), {"kind": "choice", "noise_multiplier": 0.01, "trimmed": 1}]
    plan = parse(plan_values(stages, 3), Plan, "plan")
    names = list(plan.sites)[:3]
    good = histograms(0.75, 0.75) if evil == "force" else histograms(0.95, 0.75)
    said = {names[0]: good, names[1]: good, names[2]: histograms(1.0, 0.0) if evil == "force" else histograms(0.0, 1.0)}
    near = np.zeros(2)
    honest = "spectral" if evil == "force" else "flow"
    assert decide(plan, 0.01, {name: good for name in names}, near, 1).winner == honest
    assert decide(plan, 0.01, said, near, 1).winner == honest
    assert decide(plan, 0.01, said, near, 0).winner != honest, "by the plain mean one site decides"
    # too few sites whose figures are clear: no figure
    few = {name: said[name] for name in names[:2]}
    assert decide(plan, 0.01, few, near, 1).winner == "spectral"

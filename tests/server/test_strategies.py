"""Aggregation: public weights, every reply checked before any is used, going on from a saved state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.plans import dp_sgd
from tests.support.plans import small_plan

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.spectral.layout import COUNT_WEIGHT
from sfumato_common.generators.update import UPDATE, pack_update, unpack_update
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import strategy_of
from sfumato_server.rounds.strategies.averaging import move_start

DP = dp_sgd(rounds=2)
KINDS = ("spectral", "gan", "flow")


@pytest.fixture(scope="module")
def plan() -> Plan:
    value = small_plan(
        {"kind": "gan", "width": 8, "generator_steps": 3, "fakes": 4, **DP},
        {"kind": "flow", "steps_per_level": 1, "hidden": 8, **DP},
        released="spectral",
        sites={"alder": 100, "birch": 300},
    )
    return parse(value, Plan, "test")


def updated_weights(plan, kind):
    """The weights whose change a site sends."""
    name = {"gan": "discriminator", "flow": "flow"}[kind]
    return weights_schema(plan, {name: NETWORKS[name]})


def reply(plan: Plan, kind: str, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    if kind != "spectral":
        weights = updated_weights(plan, kind)
        change = {name: (0.1 * rng.normal(size=spec.shape)).astype(np.float32) for name, spec in weights.items()}
        return {UPDATE: pack_update({name: np.zeros_like(value) for name, value in change.items()}, change)}
    arrays = {
        name: (0.1 * rng.normal(size=spec.shape)).astype(np.float32)
        for name, spec in EXCHANGES[kind].returned(plan).items()
    }
    arrays["sums"][:, 0] += 100 * COUNT_WEIGHT
    return arrays


def weights_of(arrays, prefix):
    return {name: value for name, value in arrays.items() if name.startswith(prefix)}


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def released(plan) -> dict[str, dict[str, np.ndarray]]:
    strategy = strategy_of(plan, plan.stage("spectral"), {})
    strategy.absorb(1, {"alder": reply(plan, "spectral", 0), "birch": reply(plan, "spectral", 1)}, rng())
    return {"spectral": strategy.released()}


def after_a_round(plan, released, kind):
    strategy = strategy_of(plan, plan.stage(kind), released)
    strategy.absorb(1, {"alder": reply(plan, kind, 2), "birch": reply(plan, kind, 3)}, rng())
    return strategy


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_out_and_what_is_released_fit_the_schemas(plan, released, kind):
    strategy = strategy_of(plan, plan.stage(kind), released)
    for _ in range(2):
        sent = strategy.outbound(1, "alder")
        assert sent.keys() == EXCHANGES[kind].sent(plan).keys()
        assert all(EXCHANGES[kind].sent(plan)[name].matches(value) for name, value in sent.items())
        strategy.absorb(1, {"birch": reply(plan, kind, 4)}, rng())
    final = strategy.released()
    assert final.keys() == EXCHANGES[kind].released(plan).keys()
    assert all(EXCHANGES[kind].released(plan)[name].matches(value) for name, value in final.items())
    assert sample_images(plan, kind, final, np.array([0, 1]), TorchDraws(rng())).shape == (2, 16, 16)


def changes(plan: Plan, kind: str, seed: int) -> dict[str, np.ndarray]:
    return unpack_update(reply(plan, kind, seed)[UPDATE], updated_weights(plan, kind))


def test_the_flow_moves_by_the_mean_update_weighted_by_public_numbers(plan, released):
    start = strategy_of(plan, plan.stage("flow"), released).outbound(1, "alder")
    final = after_a_round(plan, released, "flow").released()
    first, second = changes(plan, "flow", 2), changes(plan, "flow", 3)
    assert all(np.allclose(final[n], start[n] + 0.25 * first[n] + 0.75 * second[n], atol=1e-6) for n in first)
    alone = move_start(plan, weights_of(start, "flow/"), {"alder": reply(plan, "flow", 2)})
    assert all(np.allclose(alone[n], start[n] + first[n], atol=1e-6) for n in first)


def test_spectral_sums_are_added_not_weighted(plan):
    few, many = reply(plan, "spectral", 0), reply(plan, "spectral", 0)
    few["sums"][:, 0] = np.array([30, 10]) * COUNT_WEIGHT
    many["sums"][:, 0] = np.array([10, 150]) * COUNT_WEIGHT
    strategy = strategy_of(plan, plan.stage("spectral"), {})
    strategy.absorb(1, {"alder": few, "birch": many}, rng())
    assert strategy.released()["spectral/shares"] == pytest.approx([0.2, 0.8], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["nan", "missing", "extra", "shape", "dtype", "padding", "stranger", "nobody"])
def test_a_bad_reply_is_refused_whole(plan, released, kind, fault):
    arrays = reply(plan, kind, 0)
    name = next(iter(arrays))
    replies = {"alder": arrays, "birch": reply(plan, kind, 1)}
    if fault == "nan":
        arrays[name].flat[0] = np.nan if kind == "spectral" else 0x7F80  # infinity in bfloat16
    elif fault == "missing":
        del arrays[name]
    elif fault == "extra":
        arrays["batch_size"] = np.zeros(1, dtype=np.float32)
    elif fault == "shape":
        arrays[name] = arrays[name][..., :1]
    elif fault == "dtype":
        arrays[name] = arrays[name].astype(np.float64)
    elif fault == "padding":
        if kind == "spectral":
            pytest.skip("the spectral arrays have no padding")
        arrays[name][-1] = 1
    elif fault == "stranger":
        replies["elder"] = replies.pop("alder")
    else:
        replies = {}
    strategy = strategy_of(plan, plan.stage(kind), released)
    before = {key: value.copy() for key, value in strategy.state().items()}
    with pytest.raises(FederationError if fault == "nobody" else VerificationError):
        strategy.absorb(1, replies, rng())
    assert all(np.array_equal(value, before[key]) for key, value in strategy.state().items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_strategy_goes_on_the_same(plan, released, kind):
    strategy = after_a_round(plan, released, kind)
    other = strategy_of(plan, plan.stage(kind), released)
    other.restore({name: value.copy() for name, value in strategy.state().items()})
    for left, right in (
        (strategy.outbound(2, "alder"), other.outbound(2, "alder")),
        (strategy.released(), other.released()),
    ):
        assert left.keys() == right.keys()
        assert all(np.array_equal(left[name], right[name]) for name in left)
    for each in (strategy, other):
        each.absorb(2, {"alder": reply(plan, kind, 5)}, rng())
    assert all(np.array_equal(value, other.released()[name]) for name, value in strategy.released().items())


def test_nothing_is_released_before_the_spectral_exchange(plan):
    with pytest.raises(FederationError, match="has not run"):
        strategy_of(plan, plan.stage("spectral"), {}).released()


def test_the_generator_moves_against_the_average_discriminator_only(plan, released):
    strategy = strategy_of(plan, plan.stage("gan"), released)
    start = strategy.outbound(1, "alder")
    strategy.absorb(1, {"alder": reply(plan, "gan", 2), "birch": reply(plan, "gan", 3)}, rng())
    sent, final = strategy.outbound(2, "alder"), strategy.released()
    replies = {"alder": reply(plan, "gan", 2), "birch": reply(plan, "gan", 3)}
    expected = move_start(plan, weights_of(start, "discriminator/"), replies)
    assert all(np.array_equal(sent[name], expected[name]) for name in expected)
    assert [n for n in final if n.startswith("generator/") and not np.array_equal(final[n], start[n])]
    assert not any(name.startswith("discriminator/") for name in final)

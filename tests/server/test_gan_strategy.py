"""The generator's training: it stops when the discriminator is fooled; its average outlives a restart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.plans import small_plan

from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.spectral.layout import COUNT_WEIGHT
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.generators.weights import to_arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.rounds.strategies.gan import GanStrategy
from sfumato_server.rounds.strategies.spectral import SpectralStrategy

DP = {"local_steps": 2, "sampling_rate": 0.2, "clipping_norm": 1.0, "noise_multiplier": 1.0, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def plan() -> Plan:
    value = small_plan(
        {"kind": "gan", "width": 8, "rounds": 2, "generator_steps": 12, "fakes": 4, **DP},
        released="gan",
        sites={"alder": 100},
    )
    return parse(value, Plan, "test")


@pytest.fixture(scope="module")
def released(plan) -> dict[str, dict[str, AnyArray]]:
    rng = np.random.default_rng(0)
    schema = EXCHANGES["spectral"].returned(plan)
    arrays = {name: (0.1 * rng.normal(size=spec.shape)).astype(np.float32) for name, spec in schema.items()}
    arrays["sums"][:, 0] += 100 * COUNT_WEIGHT
    strategy = SpectralStrategy(plan, plan.stage("spectral"), {})
    strategy.absorb(1, {"alder": arrays}, rng_of(0))
    return {"spectral": strategy.released()}


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def leaning(plan: Plan, bias: float) -> dict[str, AnyArray]:
    """A reply that makes the discriminator call everything real (bias above 0) or generated (below)."""
    zero = {
        name: np.zeros(spec.shape, np.float32)
        for name, spec in weights_schema(plan, {"discriminator": NETWORKS["discriminator"]}).items()
    }
    change = {**zero, "discriminator/head.bias": np.full(1, bias, np.float32)}
    return {UPDATE: pack_update(zero, change)}


def distance(one: dict[str, AnyArray], two: dict[str, AnyArray]) -> float:
    return max(float(np.abs(value - two[name]).max()) for name, value in one.items() if "generator/" in name)


def test_a_judge_that_is_fooled_teaches_little_and_one_that_is_not_the_whole_round(plan, released):
    moves = {}
    for bias in (-50.0, 50.0):
        strategy = GanStrategy(plan, plan.stage("gan"), released)
        start = strategy.outbound(1, "alder")
        strategy.absorb(1, {"alder": leaning(plan, bias)}, rng_of(1))
        moves[bias] = distance(strategy.outbound(2, "alder"), start)
    # a discriminator calls all real from the first batch: the share over five batches passes a half at the fourth
    assert 0.0 < moves[50.0] < 0.5 * moves[-50.0]


def test_the_generator_may_begin_where_the_embedding_stage_fitted_it(plan, released):
    value = plan.model_dump()
    embedding = {"kind": "embedding", "noise_multiplier": 1.0, "width": 8}
    value["stages"] = [value["stages"][0], embedding, {**value["stages"][1], "generator_start": "embedding"}]
    combined = parse(value, Plan, "test")
    start = to_arrays("generator", initial_model("generator", combined))
    fitted = {name: np.asarray(item + np.float32(0.25)) for name, item in start.items()}
    given = {**released, "embedding": {**released["spectral"], **fitted}}
    strategy = GanStrategy(combined, combined.stage("gan"), given)
    sent = strategy.outbound(1, "alder")
    assert distance(fitted, sent) == 0.0
    assert distance(fitted, strategy.released()) == 0.0
    strategy.absorb(1, {"alder": leaning(combined, -1.0)}, rng_of(1))
    assert 0.0 < distance(strategy.outbound(2, "alder"), fitted) < 0.1
    assert distance(GanStrategy(plan, plan.stage("gan"), released).outbound(1, "alder"), fitted) > 0.1


def test_the_released_generator_is_an_average_that_outlives_a_restart(plan, released):
    strategy = GanStrategy(plan, plan.stage("gan"), released)
    start = strategy.released()
    strategy.absorb(1, {"alder": leaning(plan, -1.0)}, rng_of(1))
    assert 0.0 < distance(strategy.released(), start) < distance(strategy.outbound(2, "alder"), start)
    other = GanStrategy(plan, plan.stage("gan"), released)
    other.restore({name: value.copy() for name, value in strategy.state().items()})
    for each in (strategy, other):
        each.absorb(2, {"alder": leaning(plan, -1.0)}, rng_of(2))
    assert distance(strategy.released(), other.released()) == 0.0
    fresh = GanStrategy(plan, plan.stage("gan"), released)
    fresh.restore({**strategy.state(), **{f"average/{n}": v for n, v in start.items() if n.startswith("generator/")}})
    assert distance(fresh.released(), strategy.released()) > 0.0

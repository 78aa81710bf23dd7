"""Embedding stage at the coordinator: sums are added, the fit is repeatable, a restart goes on from the generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.plans import small_plan

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.embedding.features import COUNT_WEIGHT
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import strategy_of

Replies = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def plan() -> Plan:
    value = small_plan(
        {"kind": "embedding", "noise_multiplier": 0.1, "generator_steps": 3, "width": 8},
        released="embedding",
        sites={"alder": 100, "birch": 300},
        epsilon=50.0,
    )
    return parse(value, Plan, "test")


@pytest.fixture(scope="module")
def earlier(plan) -> dict[str, dict[str, np.ndarray]]:
    d = Layout.of(plan).features
    arrays = {"shares": np.full(2, 0.5), "mean": np.zeros((2, d)), "tail": np.ones(2)}
    arrays.update(factor=np.stack([np.eye(d) * 0.2] * 2), signal=np.stack([np.eye(d)] * 2))
    return {"spectral": {f"spectral/{name}": value.astype(np.float32) for name, value in arrays.items()}}


def replies_of(plan: Plan) -> Replies:
    rng, spec = np.random.default_rng(0), EXCHANGES["embedding"].returned(plan)["sums"]
    replies = {site: {"sums": rng.normal(size=spec.shape).astype(np.float32)} for site in plan.sites}
    for arrays in replies.values():
        arrays["sums"][:, 0] += 100 * COUNT_WEIGHT
    return replies


def absorbed(plan: Plan, earlier: Replies, replies: Replies) -> dict[str, np.ndarray]:
    strategy = strategy_of(plan, plan.stage("embedding"), earlier)
    strategy.absorb(1, replies, torch.Generator().manual_seed(0))
    return strategy.released()


def test_what_is_released_fits_the_schema_is_drawn_from_and_survives_a_restart(plan, earlier):
    strategy = strategy_of(plan, plan.stage("embedding"), earlier)
    with pytest.raises(FederationError, match="has not run"):
        strategy.released()
    assert strategy.outbound(1, "alder").keys() == earlier["spectral"].keys()
    strategy.absorb(1, replies_of(plan), torch.Generator().manual_seed(0))
    final, schema = strategy.released(), EXCHANGES["embedding"].released(plan)
    assert final.keys() == schema.keys()
    assert all(schema[name].matches(value) for name, value in final.items())
    drawn = sample_images(plan, "embedding", final, np.array([0, 1]), TorchDraws(torch.Generator().manual_seed(0)))
    assert drawn.shape == (2, 16, 16)
    other = strategy_of(plan, plan.stage("embedding"), earlier)
    other.restore({name: value.copy() for name, value in strategy.state().items()})
    assert all(np.array_equal(value, other.released()[name]) for name, value in final.items())


def test_sums_are_added_whatever_the_sites_nominal_sizes(plan, earlier):
    replies = replies_of(plan)
    exchanged = {"alder": replies["birch"], "birch": replies["alder"]}
    first, second = absorbed(plan, earlier, replies), absorbed(plan, earlier, exchanged)
    assert all(np.array_equal(value, second[name]) for name, value in first.items())
    alone = absorbed(plan, earlier, {"alder": replies["alder"]})
    assert not all(np.array_equal(value, alone[name]) for name, value in first.items())


def test_a_reply_that_is_not_finite_is_refused_whole(plan, earlier):
    replies = replies_of(plan)
    replies["alder"]["sums"][0, 5] = np.nan
    strategy = strategy_of(plan, plan.stage("embedding"), earlier)
    with pytest.raises(VerificationError):
        strategy.absorb(1, replies, torch.Generator().manual_seed(0))
    assert not strategy.state()

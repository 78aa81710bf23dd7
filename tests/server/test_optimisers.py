"""Server optimisers against their papers' formulas, the reach that sites hold them to, and discriminators by site."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.plans import dp_sgd

from sfumato_client.site.inbound import Seen
from sfumato_client.training.dp.proximal import Proximal
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.components import component_count, components_of
from sfumato_common.generators.displacement import SERVER_ADAPTIVITY, SERVER_SECOND_MOMENT, adam_step
from sfumato_common.generators.flow.displacement import BETAS as FLOW_BETAS
from sfumato_common.generators.gan.displacement import SITE_BETAS as GAN_BETAS
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.settings import DpSgdStage, ServerOptimiser
from sfumato_common.generators.starts import max_displacement
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import strategy_of
from sfumato_server.rounds.strategies.optimisers import ServerStep

SERVERS = {
    "average": {"kind": "average"},
    "slow average": {"kind": "average", "learning_rate": 0.5},
    "momentum": {"kind": "momentum", "momentum": 0.8},
    "adam": {"kind": "adam", "learning_rate": 0.02},
}
DP = dp_sgd(rounds=5, local_steps=3, learning_rate=0.01)
PLAN = {
    "study": "servers",
    "image": {"size": 16},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 40}, "birch": {"nominal_patients": 80}},
    "privacy": {"epsilon": 100.0, "delta": 1.0e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 0.5},
        {"kind": "gan", "width": 8, "generator_steps": 2, "fakes": 8, **DP},
        {"kind": "flow", "levels": 1, "steps_per_level": 1, "hidden": 8, **DP},
    ],
    "release": [{"model": "spectral", "images": 4}],
    "federation": {"quorum": 1},
}

SITE_BETAS = {"gan": GAN_BETAS, "flow": FLOW_BETAS}


def plan_with(by_site: bool = False, **changes) -> Plan:
    value = copy.deepcopy(PLAN)
    value["stages"][0]["by_site"] = by_site
    for stage in value["stages"][1:]:
        stage.update({key: new for key, new in changes.items() if key != "discriminators" or stage["kind"] == "gan"})
    return parse(value, Plan, "plan")


def updated_weights(plan, kind):
    """The weights whose change a site sends."""
    name = {"gan": "discriminator", "flow": "flow"}[kind]
    return weights_schema(plan, {name: NETWORKS[name]})


def dp_stage(plan: Plan, kind: str) -> DpSgdStage:
    stage = plan.stage(kind)
    assert isinstance(stage, DpSgdStage)
    return stage


def spectral(plan: Plan) -> dict[str, np.ndarray]:
    shapes = {n: spec.shape for n, spec in EXCHANGES["flow"].sent(plan).items() if n.startswith("spectral/")}
    values = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name in ("spectral/factor", "spectral/signal"):
        values[name] += 0.1 * np.eye(shapes[name][-1], dtype=np.float32)
    values["spectral/shares"] += 1.0 / component_count(plan)
    values["spectral/tail"] += 1.0
    return values


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_steps_are_those_of_the_papers():
    changes = np.random.default_rng(1).normal(size=(6, 3))
    expected = {"average": 0.5 * changes.sum(axis=0), "momentum": np.zeros(3), "adam": np.zeros(3)}
    first, second, velocity = np.zeros(3), np.zeros(3), np.zeros(3)
    for change in changes:
        velocity = 0.9 * velocity + change
        expected["momentum"] += 0.5 * velocity
        first = 0.9 * first + 0.1 * change
        second = SERVER_SECOND_MOMENT * second + (1 - SERVER_SECOND_MOMENT) * change**2
        expected["adam"] += 0.5 * first / (np.sqrt(second) + SERVER_ADAPTIVITY)
    for kind, end in expected.items():
        step, place = ServerStep(ServerOptimiser(kind=kind, learning_rate=0.5)), {"w": np.zeros(3, np.float32)}
        for change in changes:
            place = step.move(place, {"w": change})
        assert place["w"].dtype == np.float32
        assert place["w"] == pytest.approx(end, rel=1e-5), kind


def test_adam_must_state_its_step():
    with pytest.raises(ConfigError, match="adam needs its own learning_rate"):
        plan_with(server={"kind": "adam"})
    stated = plan_with(server=SERVERS["adam"])
    assert parse(stated.model_dump(mode="json"), Plan, "again") == stated


def random_reply(plan: Plan, kind: str, seed: int) -> dict[str, np.ndarray]:
    rng, weights = np.random.default_rng(seed), updated_weights(plan, kind)
    change = {name: (0.01 * rng.normal(size=spec.shape)).astype(np.float32) for name, spec in weights.items()}
    return {UPDATE: pack_update({name: np.zeros_like(value) for name, value in change.items()}, change)}


@pytest.mark.parametrize("kind", ["gan", "flow"])
@pytest.mark.parametrize("discriminators", ["joint", "per-site"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_restarted_coordinator_goes_on_the_same(kind, discriminators, server):
    plan = plan_with(server=SERVERS[server], discriminators=discriminators)
    released = {"spectral": spectral(plan)}
    strategy = strategy_of(plan, plan.stage(kind), released)
    strategy.absorb(1, {"alder": random_reply(plan, kind, 2), "birch": random_reply(plan, kind, 3)}, rng())
    again = strategy_of(plan, plan.stage(kind), released)
    again.restore({name: value.copy() for name, value in strategy.state().items()})
    for each in (strategy, again):
        each.absorb(2, {"birch": random_reply(plan, kind, 4)}, rng())
    for site in plan.sites:
        one, two = strategy.outbound(3, site), again.outbound(3, site)
        assert one.keys() == two.keys() == EXCHANGES[kind].sent(plan).keys()
        assert all(np.array_equal(one[name], two[name]) for name in one)


def worst_update(plan: Plan, kind: str, start, seed: int):
    """A site's update after steps of Adam that are as long as they come (see test_inbound), one sign a weight."""
    stage, betas = dp_stage(plan, kind), SITE_BETAS[kind]
    steps, signs = torch.arange(stage.local_steps - 1, -1, -1), np.random.default_rng(seed)
    after = {}
    for name, value in start.items():
        weight = torch.from_numpy(value.copy()).requires_grad_()
        optimiser = torch.optim.Adam([weight], lr=stage.learning_rate, betas=betas)
        sign = torch.from_numpy(signs.choice([-1.0, 1.0], value.shape).astype(np.float32))
        for size in 1e6 * (betas[0] / betas[1]) ** steps:
            weight.grad = sign * float(size)
            optimiser.step()
        after[name] = weight.detach().numpy()
    return {UPDATE: pack_update(start, after)}


def rounds_of(plan: Plan, kind: str, site: str, seed: int | None = None):
    """What `site` is sent in each round of a study whose sites always give their worst, and the final model.

    With `seed` all rounds push the same way, which momentum adds up.
    """
    strategy = strategy_of(plan, plan.stage(kind), {"spectral": spectral(plan)})
    sent = {}
    for number in range(1, dp_stage(plan, kind).rounds + 1):
        sent[number] = {name: value.copy() for name, value in strategy.outbound(number, site).items()}
        replies = {}
        for each in plan.sites:
            own = strategy.outbound(number, each)
            start = {name: own[name] for name in updated_weights(plan, kind)}
            replies[each] = worst_update(plan, kind, start, number if seed is None else seed)
        strategy.absorb(number, replies, rng())
    return sent, strategy.released()


@pytest.mark.parametrize("kind", ["gan", "flow"])
@pytest.mark.parametrize("discriminators", ["joint", "per-site"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("seed", [None, 7])
def test_sites_accept_honest_rounds_and_no_more(tmp_path, kind, discriminators, server, seed):
    plan = plan_with(server=SERVERS[server], discriminators=discriminators)
    sent, final = rounds_of(plan, kind, "birch", seed)
    stage, seen = dp_stage(plan, kind), Seen(tmp_path, plan)
    for number in (1, 2, 4, 5):  # one was missed
        seen.check_round(stage, number, sent[number])
        seen.keep_round(plan.stage(kind), number, sent[number])
    seen.check_release({"spectral": spectral(plan), kind: final})
    model = "discriminator" if kind == "gan" else "flow"
    name = next(name for name in sent[5] if name.startswith(f"{model}/"))
    crafted = np.float32(1.02 * max_displacement(stage, model, 1) + 1e-4)
    seen = Seen(tmp_path / "other", plan)
    seen.keep_round(plan.stage(kind), 4, sent[4])
    with pytest.raises(VerificationError, match="not where the plan's training could have led"):
        seen.check_round(stage, 5, {**sent[5], name: sent[4][name] + crafted})


def test_the_bound_of_adam_is_met_and_momentum_adds_up_to_its_factor():
    update, rounds = 0.03, 400
    adam = ServerOptimiser(kind="adam", learning_rate=1.0)
    growth = 0.9 / SERVER_SECOND_MOMENT
    step, place, longest = ServerStep(adam), {"w": np.zeros(1, np.float32)}, 0.0
    for age in range(rounds - 1, -1, -1):
        before = place["w"][0]
        place = step.move(place, {"w": np.array([1e6 * growth**age])})
        longest = max(longest, abs(float(place["w"][0] - before)))
    assert 0.99 < longest / adam_step((0.9, SERVER_SECOND_MOMENT)) < 1.001
    momentum, place = ServerStep(ServerOptimiser(kind="momentum")), {"w": np.zeros(1, np.float32)}
    for _ in range(100):
        before = place["w"][0]
        place = momentum.move(place, {"w": np.array([update])})
    assert float(place["w"][0] - before) == pytest.approx(10 * update, rel=1e-3)


def test_a_site_keeps_its_own_discriminator():
    plan = plan_with(discriminators="per-site")
    strategy = strategy_of(plan, plan.stage("gan"), {"spectral": spectral(plan)})
    start = strategy.outbound(1, "alder")
    strategy.absorb(1, {"alder": random_reply(plan, "gan", 2)}, rng())
    own, other = (strategy.outbound(2, site) for site in ("alder", "birch"))
    names = updated_weights(plan, "gan")
    assert all(np.array_equal(other[name], start[name]) for name in names)
    assert any(not np.array_equal(own[name], start[name]) for name in names)
    joint = strategy_of(plan_with(), plan_with().stage("gan"), {"spectral": spectral(plan)})
    joint.absorb(1, {"alder": random_reply(plan, "gan", 2)}, rng())
    one, two = (joint.outbound(2, site) for site in ("alder", "birch"))
    assert all(np.array_equal(one[name], two[name]) for name in names)


def test_the_generator_learns_from_every_trained_discriminator_on_its_sites_components():
    plan = plan_with(discriminators="per-site", by_site=True)
    strategy = strategy_of(plan, plan.stage("gan"), {"spectral": spectral(plan)})
    replies = {"alder": random_reply(plan, "gan", 2), "birch": random_reply(plan, "gan", 3)}
    strategy.absorb(1, {"birch": replies["birch"]}, rng())
    (alone,) = strategy._discriminators.panel(spectral(plan))  # alder's is still at the public start and judges nobody
    assert alone.weight == 1.0
    strategy.absorb(2, replies, rng())
    panel = strategy._discriminators.panel(spectral(plan))
    assert [discriminator.weight for discriminator in panel] == pytest.approx([1 / 3, 2 / 3])
    for site, discriminator in zip(sorted(plan.sites), panel, strict=True):
        own = components_of(plan, site, torch.arange(2))
        assert discriminator.shares.nonzero().flatten().tolist() == own.tolist()


def test_the_proximal_term_pulls_towards_the_rounds_start():
    weights = [torch.ones(2), torch.zeros(3)]
    proximal, idle = Proximal(weights, 0.5), Proximal(weights, 0.0)
    weights[0] += 2.0
    gradients = [torch.full((2,), 0.1), torch.full((3,), 0.2)]
    assert torch.allclose(proximal(gradients)[0], torch.full((2,), 1.1))
    assert torch.equal(proximal(gradients)[1], gradients[1])
    assert all(torch.equal(one, two) for one, two in zip(idle(gradients), gradients, strict=True))

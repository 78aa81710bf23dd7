"""The diffusion stage: noise and its removal, what is frozen, what a site sends, and what the coordinator averages."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.plans import dp_sgd

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.site.inbound import Seen
from sfumato_client.training import StageJob, train
from sfumato_common.errors import ConfigError, FederationError, VerificationError
from sfumato_common.generators.diffusion.denoiser import AdaptedDenoiser, Adapter, Denoiser
from sfumato_common.generators.diffusion.denoising import angles, denoise, denoising_loss
from sfumato_common.generators.diffusion.networks import ADAPTER, DENOISER, NETWORKS
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.settings import PublicStart
from sfumato_common.generators.starts import start_key
from sfumato_common.generators.update import UPDATE, unpack_update
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import fingerprint
from sfumato_server.coordinator.pretraining import pretrain, public_cohorts, public_release
from sfumato_server.rounds.strategies import strategy_of

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
STAGE = {"kind": "diffusion", "width": 16, "depth": 2, **dp_sgd(rounds=5, noise_multiplier=1.0)}
PLAN = {
    "study": "diffusion",
    "image": {"size": 16, "channels": 1},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 40}, "birch": {"nominal_patients": 40}},
    "privacy": {"epsilon": 100.0, "delta": 1.0e-5},
    "stages": [{"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 1.0}, STAGE],
    "release": [{"model": "diffusion", "images": 4}],
    "federation": {"quorum": 1},
}


def plan_with(**changes: object) -> Plan:
    value = copy.deepcopy(PLAN)
    value["stages"][1].update(changes)
    return parse(value, Plan, "plan")


def small() -> tuple[Denoiser, Adapter]:
    torch.manual_seed(0)
    frozen, change = Denoiser(1, 8, 2, 4, 16, 2, 2), Adapter(1, 2, 4, 16, 2, 3)
    with torch.no_grad():
        for parameter in (*frozen.parameters(), *change.parameters()):
            parameter += 0.1 * torch.randn_like(parameter)
    return frozen, change


def records(count: int, levels: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    u, noise = torch.randn(count, 1, 8, 8), torch.randn(count, levels, 1, 8, 8)
    return [u, torch.eye(2)[torch.arange(count) % 2], noise, angles(torch.rand(count, levels))]


def test_a_network_that_says_zero_draws_its_noise_and_the_true_velocity_leads_to_the_image():
    noise, image = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((1, 8, 8), 0.5)
    assert torch.equal(denoise(lambda x, angle, given: torch.zeros_like(x), noise, torch.zeros(3, 2), 7), noise)

    def true_velocity(x: torch.Tensor, angle: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        cos, sin = (part[:, None, None, None] for part in (angle.cos(), angle.sin()))
        return cos * (x - cos * image) / sin - sin * image

    made = denoise(true_velocity, noise, torch.zeros(3, 2), 400)
    assert torch.allclose(made, image.expand_as(made), atol=0.02)


def test_levels_of_an_image_are_one_in_each_part_of_the_quarter_turn():
    for uniform in (torch.zeros(3, 4), torch.full((3, 4), 0.999)):
        parts = angles(uniform) / (np.pi / 2) * 4
        assert torch.equal(parts.floor(), torch.arange(4.0).expand(3, 4))


def test_a_records_loss_is_the_mean_over_its_noise_levels():
    model = AdaptedDenoiser(*small())
    u, given, noise, angle = records(3, 4)
    whole = denoising_loss(model, u, given, noise, angle)
    single = [denoising_loss(model, u, given, noise[:, k : k + 1], angle[:, k : k + 1]) for k in range(4)]
    assert whole.shape == (3,)
    assert torch.allclose(whole, torch.stack(single).mean(dim=0), atol=1e-6)


def test_an_adapter_is_a_change_of_the_frozen_weights_and_all_that_is_trained():
    frozen, change = small()
    rows = records(3, 2)
    tuned = denoising_loss(AdaptedDenoiser(frozen, change), *rows)
    merged = copy.deepcopy(frozen)
    with torch.no_grad():
        merged.condition.weight += change.condition.weight
        merged.outward.weight += change.outward.weight
        merged.outward.bias += change.outward.bias
        for block, own in zip(merged.blocks, change.blocks, strict=True):
            block.inward.weight += own.inward.up.weight @ own.inward.down.weight
            block.outward.weight += own.outward.up.weight @ own.outward.down.weight
    assert torch.allclose(denoising_loss(merged, *rows), tuned, atol=1e-5)
    model = AdaptedDenoiser(frozen, change)
    assert {name for name, _ in model.named_parameters()} == {
        f"adapter.{name}" for name, _ in change.named_parameters()
    }
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    model.double()
    assert {parameter.dtype for parameter in (*frozen.parameters(), *model.parameters())} == {torch.float64}


def test_a_new_adapter_changes_nothing():
    frozen, _ = small()
    rows = records(2, 2)
    assert torch.equal(
        denoising_loss(AdaptedDenoiser(frozen, Adapter(1, 2, 4, 16, 2, 3)), *rows), denoising_loss(frozen, *rows)
    )


@pytest.mark.parametrize(
    ("changes", "match"), [({"patch": 5}, "divisible by patch = 5"), ({"width": 20}, "twice its heads")]
)
def test_forms_that_do_not_fit_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        plan_with(**changes)


@pytest.fixture(scope="module")
def study():
    """A plan that pins a start, the start, a spectral release, and two rounds of one site by a new strategy."""
    plan = plan_with()
    weights, _ = pretrain(plan, "diffusion", "textures", steps=3, patients=20)
    pinned = plan_with(start=PublicStart(source="textures", sha256=fingerprint(weights)).model_dump())
    cohorts = public_cohorts(plan, "phantom", 20, seed=0)
    spectral = public_release(plan, cohorts, np.random.default_rng(0))
    given = {"spectral": spectral, start_key("diffusion"): weights}
    return pinned, weights, given, cohorts["alder"]


def a_round(plan: Plan, strategy, number: int, public, seed: int) -> dict:
    noise, sent = TestNoise(seed), strategy.outbound(number, "alder")
    cohort = Cohort(public.images, public.labels, public.patient_index)
    job = StageJob(plan, "alder", plan.stage("diffusion"), number, sent, cohort, noise, NoiseRecorder(noise, "entry"))
    reply = dict(train(job))
    strategy.absorb(number, {"alder": reply}, torch.Generator())
    return reply


def test_a_site_sends_a_change_of_the_adapter_alone_and_the_denoiser_stays_the_pinned_one(study):
    plan, weights, given, cohort = study
    strategy = strategy_of(plan, plan.stage("diffusion"), given)
    reply = a_round(plan, strategy, 1, cohort, 3)
    assert reply.keys() == {UPDATE}
    schema = weights_schema(plan, {ADAPTER: NETWORKS[ADAPTER]})
    moved = unpack_update(reply[UPDATE], schema)
    assert any(np.abs(change).max() > 0 for change in moved.values())
    for arrays in (strategy.outbound(2, "alder"), strategy.released()):
        frozen = {name: value for name, value in arrays.items() if name.startswith(f"{DENOISER}/")}
        assert frozen and all(np.array_equal(value, weights[name]) for name, value in frozen.items())


def test_a_site_refuses_a_denoiser_that_moved(study, tmp_path):
    plan, _, given, cohort = study
    stage, strategy = plan.stage("diffusion"), strategy_of(plan, plan.stage("diffusion"), given)
    seen, first = Seen(tmp_path, plan), strategy.outbound(1, "alder")
    seen.check_round(stage, 1, first)
    seen.keep_round(stage, 1, first)
    a_round(plan, strategy, 1, cohort, 3)
    second = strategy.outbound(2, "alder")
    seen.check_round(stage, 2, second)
    crafted = {**second, f"{DENOISER}/inward.weight": second[f"{DENOISER}/inward.weight"] + np.float32(1e-3)}
    with pytest.raises(VerificationError, match="not where the plan's training could have led"):
        seen.check_round(stage, 2, crafted)
    seen.check_release({"diffusion": strategy.released()})


def test_what_is_released_is_the_average_of_rounds_and_goes_on_from_a_checkpoint(study):
    plan, _, given, cohort = study
    strategy = strategy_of(plan, plan.stage("diffusion"), given)
    with pytest.raises(FederationError):
        strategy.released()
    name, after = f"{ADAPTER}/outward.bias", []
    for number in (1, 2):
        a_round(plan, strategy, number, cohort, number)
        after.append(strategy.outbound(number + 1, "alder")[name])
        if number == 1:
            assert np.allclose(strategy.released()[name], after[0], atol=1e-7), "of the start there is nothing in it"
    rate = 1.0 / (0.3 * 5)
    wanted = (rate * after[1] + rate * (1 - rate) * after[0]) / (rate + rate * (1 - rate))
    assert np.allclose(strategy.released()[name], wanted, atol=1e-7)
    assert not np.allclose(after[0], after[1])
    other = strategy_of(plan, plan.stage("diffusion"), given)
    other.restore(strategy.state())
    reply = a_round(plan, strategy, 3, cohort, 9)
    other.absorb(3, {"alder": reply}, torch.Generator())
    assert all(np.array_equal(value, other.released()[key]) for key, value in strategy.released().items())

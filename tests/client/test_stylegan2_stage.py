"""A StyleGAN2 stage under either kind of plan: what sites send, and what the coordinator makes of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.plans import dp_sgd, small_plan

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, stylegan2, train
from sfumato_common.accounting.events import Unprotected, same_mechanisms
from sfumato_common.errors import EgressRefused
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.stylegan2.networks import DISCRIMINATOR, GENERATOR
from sfumato_common.generators.update import UPDATE
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import BareRecorder, NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies.stylegan2 import StyleGan2Strategy

TERMS = {"channel_base": 128, "channel_max": 8, "generator_steps": 2, "fakes": 8, "rounds": 2, "local_steps": 3}


def plan_of(private: bool, **terms) -> Plan:
    noise = 1.0 if private else 0.001
    own = {**TERMS, "noise_multiplier": noise, "sites_train": "discriminator" if private else "both", **terms}
    value = small_plan(
        dp_sgd(kind="stylegan2", **own),
        released="stylegan2",
        sites={"alder": 40, "birch": 40},
        epsilon=1e3,
        noise=noise,
    )
    return parse({**value, "private": private}, Plan, "test")


def cohort(patients: int = 30) -> Cohort:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (patients, 16, 16)).astype(np.uint8)
    return Cohort(images, np.arange(patients) % 2, np.arange(patients))


def spectral(plan: Plan) -> dict[str, np.ndarray]:
    schema = GENERATORS["spectral"].released(plan)
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in schema.items()}
    arrays["spectral/shares"][:] = 0.5
    return arrays


def strategy_of(plan: Plan) -> StyleGan2Strategy:
    return StyleGan2Strategy(plan, plan.stage("stylegan2"), {"spectral": spectral(plan)})


def reply(plan: Plan, sent, some: Cohort, bare: bool = True, seed: int = 0):
    noise = TestNoise(seed)
    recorder = BareRecorder("stylegan2", "entry") if bare else NoiseRecorder(noise, "entry")
    found = dict(train(StageJob(plan, "alder", plan.stage("stylegan2"), 1, sent, some, noise, recorder)))
    return found, recorder.executed


def moved(before, after, network: str) -> bool:
    return any((before[name] != value).any() for name, value in after.items() if name.startswith(f"{network}/"))


@pytest.mark.parametrize("augmentation", ["none", "adaptive"])
def test_without_privacy_both_networks_are_trained_at_the_sites_and_averaged(augmentation):
    plan = plan_of(False, augmentation=augmentation, sampling_rate=0.4, path_length=1.0)
    strategy = strategy_of(plan)
    sent = strategy.outbound(1, "alder")
    found, executed = reply(plan, sent, cohort())
    assert same_mechanisms([Unprotected("stylegan2")], executed)
    GENERATORS["stylegan2"].check_reply(plan, "alder", found)
    strategy.absorb(1, {"alder": found, "birch": copy.deepcopy(found)}, torch.Generator().manual_seed(0))
    after = strategy.outbound(2, "alder")
    assert moved(sent, after, GENERATOR) and moved(sent, after, DISCRIMINATOR)
    assert moved(sent, strategy.released(), GENERATOR)


def test_a_site_without_patients_answers_that_nothing_changed():
    plan = plan_of(False)
    empty = Cohort(np.zeros((0, 16, 16), np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))
    found, _ = reply(plan, strategy_of(plan).outbound(1, "alder"), empty)
    assert not found[UPDATE].any()


def test_training_of_both_networks_is_refused_under_a_charge_with_privacy():
    plan = plan_of(False)
    with pytest.raises(EgressRefused, match="this plan is private"):
        reply(plan, strategy_of(plan).outbound(1, "alder"), cohort(), bare=False)


def test_under_privacy_the_penalty_sees_generated_images_alone_and_the_coordinator_trains_the_generator(monkeypatch):
    plan, seen = plan_of(True), []
    penalty = stylegan2.gradient_penalty
    monkeypatch.setattr(stylegan2, "gradient_penalty", lambda net, x, c: seen.append(x) or penalty(net, x, c))
    strategy = strategy_of(plan)
    sent = strategy.outbound(1, "alder")
    one, _ = reply(plan, sent, cohort(), bare=False)
    other, _ = reply(plan, sent, cohort(12), bare=False)
    assert len(seen) == 2 and torch.equal(*seen), "whoever the patients are"
    assert not np.array_equal(one[UPDATE], other[UPDATE])
    strategy.absorb(1, {"alder": one}, torch.Generator().manual_seed(0))
    after = strategy.outbound(2, "alder")
    assert moved(sent, after, GENERATOR) and moved(sent, after, DISCRIMINATOR)


@pytest.mark.parametrize("private", [True, False])
def test_a_restart_goes_on_where_it_was(private):
    plan = plan_of(private)
    first = strategy_of(plan)
    found, _ = reply(plan, first.outbound(1, "alder"), cohort(), bare=not private)
    first.absorb(1, {"alder": found}, torch.Generator().manual_seed(0))
    second = strategy_of(plan)
    second.restore(first.state())
    for one, two in ((first.outbound(2, "alder"), second.outbound(2, "alder")), (first.released(), second.released())):
        assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)

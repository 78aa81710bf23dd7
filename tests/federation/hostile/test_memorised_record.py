"""Weights crafted by gradient ascent so that ONE patient's gradient is enormous and everyone else's tiny.

(a) As a request they are refused. (b) Handed to the mechanism directly, that patient still moves the sum by at most the
clipping norm, and a membership test with a matched filter stays below the charged epsilon (Jagielski et al. 2020;
exact binomial bounds). (c) Without the clip the same test catches the patient.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from support.hospital import ONE_SITE
from torch.func import functional_call, grad, vmap
from torch.nn.functional import one_hot, softplus

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_client.training.dp.batches import patient_batches
from sfumato_client.training.dp.engines import ENGINES, private_engine
from sfumato_client.training.dp.step import PrivateGradient
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import SampledGaussian
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.gan.discriminator import real_loss
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_unit_range

C = 1.0
LOSSES = {"discriminator": real_loss, "flow": flow_loss}
PATIENTS, STEPS = 12, 400
OBSERVED = {"sampling_rate": 0.5, "noise_multiplier": 2.0, "clipping_norm": C, "local_steps": STEPS}
STAGES = [{**stage, **OBSERVED} if stage["kind"] == "gan" else stage for stage in ONE_SITE["stages"]]
PLAN = parse({**ONE_SITE, "stages": STAGES, "sites": {"alder": {"nominal_patients": PATIENTS}}}, Plan, "plan")
ENGINE_NAMES = {"discriminator": sorted(set(ENGINES) - {"vmap-compiled"}), "flow": ["loop", "vmap"]}


def gradient_norms(model, loss, x, y):
    """Norm [N] of every record's gradient, as a function of the parameters."""

    def one(parameters, *record):
        return loss(lambda *rows: functional_call(model, parameters, rows), *(part[None] for part in record)).sum()

    per_record = vmap(grad(one), in_dims=(None, 0, 0))

    def norms(parameters):
        samples = per_record(parameters, x, y).values()
        return torch.stack([sample.flatten(1).square().sum(dim=1) for sample in samples]).sum(dim=0).sqrt()

    return norms


def ascend(model, kind, x, y, steps):
    """The weights, of all steps, at which record 0's gradient stands out most; record 0 is the patient attacked."""
    norms = gradient_norms(model, LOSSES[kind], x, y)

    def contrast(parameters):
        found = norms(parameters).log()
        return found[1:].logsumexp(dim=0) - found[0]

    def margin(parameters):
        logits = functional_call(model, parameters, (x, y))
        return softplus(-logits[1:]).sum() + softplus(logits[0])

    # a logistic loss is ascended through its logits: where they saturate, gradients of norms are lost in rounding
    descend = grad(margin if kind == "discriminator" else contrast)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02 if kind == "discriminator" else 0.01)
    best, kept = 0.0, model.state_dict()
    for _ in range(steps):
        now = {name: value.detach().clone() for name, value in model.named_parameters()}
        found = norms(now)
        if torch.isfinite(found).all() and float(found[0] / found[1:].max()) > best and found[0] > C:
            best, kept = float(found[0] / found[1:].max()), now
        for name, slope in descend(now).items():
            model.get_parameter(name).grad = slope.nan_to_num(0.0)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.load_state_dict(kept)
    return best


@pytest.fixture(scope="module")
def cohort(moments):
    """A dozen real patients of the hospital, one image each; patient 0 is attacked."""
    store = moments[0].home.open_store().cohort("train")
    images, labels = zip(*(store.images_of(patient) for patient in range(PATIENTS)), strict=True)
    first = np.stack([image[0] for image in images]), np.array([label[0] for label in labels])
    return Cohort(*first, np.arange(PATIENTS))


def tensors(cohort):
    images, labels, _ = cohort.everything()
    return torch.from_numpy(to_unit_range(images)), one_hot(torch.from_numpy(labels), 2).float()


@pytest.fixture(scope="module", params=["discriminator", "flow"])
def crafted(request, cohort, moments):
    """(kind, model with crafted weights, how many times the attacked gradient is larger than any other)."""
    kind = request.param
    model = initial_model(kind, moments[0].plan)
    return kind, model, ascend(model, kind, *tensors(cohort), steps=200 if kind == "discriminator" else 80)


def flat(parts):
    return torch.cat([part.detach().double().flatten() for part in parts])


def test_the_attack_is_an_attack(crafted):
    assert crafted[2] > 20.0


def test_as_a_request_the_crafted_weights_are_refused(crafted, fresh, midway):
    kind, model, _ = crafted
    reason = "not where the plan's training could have led"
    for hospital, key in ((fresh, ("gan", 1)), (midway, ("gan", 2)), (fresh, ("flow", 1))):
        if (kind == "flow") == (key[0] == "flow"):
            request = hospital.asked[key]
            changed = dataclasses.replace(request, arrays={**request.arrays, **to_arrays(kind, model)})
            hospital.refuses(changed, "verification-failed", reason)


def test_the_patient_moves_the_clipped_sum_by_at_most_the_clipping_norm(crafted, cohort):
    kind, model, _ = crafted
    x, y = tensors(cohort)
    for name in ENGINE_NAMES[kind]:
        engine = ENGINES[name](model, LOSSES[kind])
        whole = flat(engine.clipped_sum((x, y), C))
        for gone in range(PATIENTS):
            kept = [patient for patient in range(PATIENTS) if patient != gone]
            moved = float((whole - flat(engine.clipped_sum((x[kept], y[kept]), C))).norm())
            assert moved <= C * (1 + 1e-5), name
            # the attacked patient is held by the clip, not by chance
            assert gone > 0 or moved > 0.99 * C, name
        unclipped = float(
            (flat(engine.clipped_sum((x, y), 1e9)) - flat(engine.clipped_sum((x[1:], y[1:]), 1e9))).norm()
        )
        assert unclipped > 1.5 * C, name


class Unclipped:
    """An engine that forgot to clip."""

    def __init__(self, engine):
        self._engine = engine

    def clipped_sum(self, records, clipping_norm, weights=None):
        return self._engine.clipped_sum(records, 1e9, weights)


def observations(model, cohort, direction, wrap=lambda engine: engine):
    """The released gradient of every step, through a filter matched to the attacked patient [STEPS]."""
    stage, noise = PLAN.stage("gan"), SecureNoise()
    recorder = NoiseRecorder(noise, "entry")
    job = StageJob(PLAN, "alder", PLAN.stage("gan"), 1, {}, cohort, noise, recorder)
    form = (1, PLAN.image.size, PLAN.image.size)
    engine = wrap(private_engine(model, real_loss, stage.engine, (form, (2,))))
    private = PrivateGradient(job, engine)
    seen = [
        float(flat(private([((batch.images, one_hot(batch.labels, 2).float()), batch.weights)])) @ direction)
        for (batch,) in patient_batches(cohort, stage, PATIENTS, SecretStream(noise), form)
    ]
    assert recorder.executed == (stage.event,)
    return np.array(seen)


def epsilon_shown(inside, outside, delta) -> float:
    """Lower bound on epsilon that a threshold shows, chosen on one half and counted on the other (99.5 % a rate)."""
    half = len(inside) // 2

    def bound(threshold, rows):
        hits, alarms = (int((seen[rows] > threshold).sum()) for seen in (inside, outside))
        low = binomtest(hits, half).proportion_ci(0.99, "exact").low
        high = binomtest(alarms, half).proportion_ci(0.99, "exact").high
        return math.log(max(low - delta, 1e-12) / high)

    first, second = slice(0, half), slice(half, 2 * half)
    candidates = np.quantile(np.concatenate([inside[first], outside[first]]), np.linspace(0.02, 0.98, 49))
    return bound(max(candidates, key=lambda threshold: bound(threshold, first)), second)


@pytest.mark.parametrize("crafted", ["discriminator"], indirect=True)
def test_a_membership_test_stays_below_the_charge_and_catches_a_missing_clip(crafted, cohort):
    _, model, _ = crafted
    x, y = tensors(cohort)
    gradient = flat(ENGINES["loop"](model, real_loss).clipped_sum((x[:1], y[:1]), 1e9))
    direction = gradient / gradient.norm()
    without = Cohort(cohort.images[1:], cohort.labels[1:], np.arange(PATIENTS - 1))
    stage, delta = PLAN.stage("gan"), PLAN.privacy.delta
    charged = epsilon([SampledGaussian(stage.noise_multiplier, stage.sampling_rate, 1)], delta)
    honest = [observations(model, data, direction) for data in (cohort, without)]
    assert epsilon_shown(*honest, delta) <= charged
    broken = [observations(model, data, direction, Unclipped) for data in (cohort, without)]
    assert epsilon_shown(*broken, delta) > charged


def test_the_trainer_with_crafted_weights_seals_what_the_plan_charges(crafted, cohort, moments):
    kind, model, _ = crafted
    stage = "flow" if kind == "flow" else "gan"
    original, noise = moments[0], SecureNoise()
    inbound = {**original.asked[stage, 1].arrays, **to_arrays(kind, model)}
    job = StageJob(
        original.plan, "alder", original.plan.stage(stage), 1, inbound, cohort, noise, NoiseRecorder(noise, "entry")
    )
    train(job)
    assert job.recorder.executed == (original.plan.stage(stage).event,)

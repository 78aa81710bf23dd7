"""DP-GLOW and CADP on codes: a latent has the code's numbers, and what is charged is what ran."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato_client.anonymise import Job, Release, anonymise
from sfumato_client.anonymise.latents import codec_of
from sfumato_client.dataset import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.generators.whitening import whitening_of
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream, Streams
from sfumato_common.phantom import arrays as phantom
from sfumato_common.strict import parse
from sfumato_common.study.costs import release_events
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_bytes
from sfumato_server.rounds.strategies import strategy_of

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
FORM = {"size": 32, "cosines": 64, "kept": 24, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
ITEMS = {
    "dp-glow": {"method": "dp-glow", "images": 12, "radius": 80.0, "epsilon": 40.0},
    "cadp": {"method": "cadp", "images": 12, "radius": 80.0, "epsilon": 40.0, "label": "public"},
}


def plan_of(method: str) -> Plan:
    dp = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.2, "clipping_norm": 1.0, "noise_multiplier": 1.0}
    flow = {"kind": "flow", "levels": 2, "steps_per_level": 2, "hidden": 8, "learning_rate": 1e-3, **dp}
    return parse(
        {
            "study": "codes",
            "image": {"size": 32},
            "labels": ["normal", "opacity"],
            "sites": {"alder": {"nominal_patients": 60}},
            "privacy": {"epsilon": 1000.0, "delta": 1e-5},
            "stages": [{"kind": "codec", "noise_multiplier": 0.02, "form": FORM}, flow],
            "release": [ITEMS[method]],
            "federation": {"quorum": 1},
        },
        Plan,
        "plan",
    )


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return Cohort(*phantom(3, 60, 32))


@pytest.fixture(scope="module")
def models(cohort):
    plan, noise = plan_of("dp-glow"), TestNoise(0)
    strategy, stage = strategy_of(plan, plan.stage("codec"), {}), plan.stage("codec")
    job = StageJob(plan, "alder", stage, 1, strategy.outbound(1, "alder"), cohort, noise, NoiseRecorder(noise, "entry"))
    strategy.absorb(1, {"alder": dict(train(job))}, torch.Generator().manual_seed(0))
    flow = initial_model("flow", plan)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.01 * torch.sin(torch.arange(parameter.numel())).reshape(parameter.shape)
    first = strategy.released()
    return {"codec": first, "flow": {**first, **to_arrays("flow", flow)}}


def job_of(method, models, cohort) -> Job:
    plan = plan_of(method)
    recorder = NoiseRecorder(TestNoise(4), "entry")
    return Job(Release(plan, "alder", models, cohort), plan.release[0], Streams.of(TestNoise(3)), recorder)


@pytest.mark.parametrize("method", sorted(ITEMS))
def test_images_of_noised_codes_cost_what_the_plan_charges(method, models, cohort):
    job = job_of(method, models, cohort)
    found = anonymise(job)
    assert found.images.shape == (12, 32, 32) and found.images.std() > 5
    charged = [event for event in release_events(job.plan, job.item) if type(event).__name__ != "Declared"]
    assert [type(event) for event in job.recorder.executed] == [type(event) for event in charged]
    noised = [event for event in job.recorder.executed if hasattr(event, "epsilon")]
    assert sum(event.epsilon for event in noised) == pytest.approx(40.0)


def test_a_latent_has_the_codes_numbers_and_all_of_them_decode_to_the_record(models, cohort):
    """Nothing of the corner is a coordinate; without noise an image is its record's, but for grain."""
    codec = codec_of(job_of("dp-glow", models, cohort))
    images, labels = cohort.images[:6], cohort.labels[:6]
    rows = codec.encode(images, labels, 64, SecretStream(TestNoise(0)))
    assert rows.shape == (6, 64) and np.isfinite(rows).all()
    again = codec.encode(images, labels, 64, SecretStream(TestNoise(1)))
    assert np.abs(rows - again).mean() < 0.1 * np.abs(rows).mean(), "the corner's noise touches them a little at most"
    made = codec.decode(rows, labels, Streams.of(TestNoise(0)).published).astype(float)
    space, y = whitening_of(plan_of("dp-glow"), models["flow"]), torch.from_numpy(labels)
    assert space.form.numbers == 64
    features = torch.from_numpy(space.records(images))
    white = space.white(space.spread(features, SecretStream(TestNoise(2))), y)
    coded = to_bytes(space.decode(white, y, *space.draw_noise(6, Streams.of(TestNoise(5)).published)).numpy())
    own, other = np.abs(made - coded).mean(), np.abs(made - np.roll(coded, 1, axis=0)).mean()
    assert own < 0.4 * other, (own, other)

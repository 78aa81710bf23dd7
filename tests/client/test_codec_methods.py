"""Methods on averages in the codec space: each makes its images of groups, and dp-k-average costs what is charged."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from sfumato_client.anonymise import Job, Release, anonymise
from sfumato_client.dataset import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.generators import GENERATORS
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.costs import release_events
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import strategy_of

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
SIZE, K = 32, 4
TERMS = {
    "k-same": {"k": K, "distance": "image"},
    "k-salsa": {"k": K, "steps": 4, "embedding_steps": 4},
    "linear-walk": {"k": K, "points": 2},
    "plan-walk": {"k": K, "points": 2, "steps": 4, "classifier_steps": 4},
    "dp-k-average": {"k": K, "radius": 8.0, "noise_multiplier": 1.0},
}
FORM = {"size": SIZE, "cosines": 64, "kept": 32, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}


def plan_of(method: str) -> Plan:
    value = {
        "study": "methods",
        "image": {"size": SIZE},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 60}},
        "privacy": {"epsilon": 1000.0, "delta": 1e-5},
        "stages": [{"kind": "codec", "noise_multiplier": 0.02, "form": FORM}],
        "release": [{"method": method, "model": "codec", "images": 5, **TERMS[method]}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


@cache
def cohort_of(seed: int) -> Cohort:
    return Cohort(*phantom_arrays(seed, 48, SIZE))


def released(plan: Plan) -> dict[str, np.ndarray]:
    strategy, stage, noise = strategy_of(plan, plan.stage("codec"), {}), plan.stage("codec"), TestNoise(0)
    recorder = NoiseRecorder(noise, "entry")
    reply = train(StageJob(plan, "alder", stage, 1, strategy.outbound(1, "alder"), cohort_of(1), noise, recorder))
    strategy.absorb(1, {"alder": dict(reply)}, torch.Generator().manual_seed(0))
    GENERATORS["codec"].check_fixed(plan, strategy.released())
    return strategy.released()


def job_of(method: str, seed: int = 0) -> Job:
    plan, noise = plan_of(method), TestNoise(seed)
    release = Release(plan, "alder", {"codec": released(plan)}, cohort_of(0))
    return Job(release, plan.release[0], Streams.of(noise), NoiseRecorder(noise, "entry"))


@pytest.mark.parametrize("method", sorted(TERMS))
def test_every_method_on_averages_works_in_the_codec_space(method):
    found, again = anonymise(job_of(method)), anonymise(job_of(method))
    assert (found.images.shape, found.images.dtype) == ((5, SIZE, SIZE), np.uint8)
    assert (found.method, found.model) == (method, "codec")
    assert found.patients >= K
    assert np.array_equal(found.images, again.images)
    assert len(np.unique(found.images.reshape(5, -1), axis=0)) == 5
    assert found.images.std() > 20, "they show something"


def test_what_dp_k_average_spends_is_what_the_plan_charges():
    job = job_of("dp-k-average")
    assert list(anonymise(job).spends) == release_events(job.plan, job.item)

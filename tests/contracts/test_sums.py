"""The contract of releases that may leave as sums over sites: phases are charged as they run, and give a model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.encoders import terms_for, tiny_encoder

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob
from sfumato_common.accounting.events import SummedGaussian, same_mechanisms
from sfumato_common.errors import VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.base import import_named
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.summed import sum_of_cells
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import Summing, strategy_of
from sfumato_server.rounds.summing import Pooled

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
AMONG = 2
SITES = ("alder", "birch", "cedar")
SUMMED = sorted(kind for kind, record in EXCHANGES.items() if record.summed is not None)


SPECTRAL = {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 0.5}
STAGES = {
    "spectral": SPECTRAL,
    "appearance": {"kind": "appearance", "noise_multiplier": 0.5, "phantoms": 8},
    "codec": {"kind": "codec", "noise_multiplier": 0.5, "form": {"size": 16, "cosines": 24, "kept": 8, "width": 8}},
    "embedding": {"kind": "embedding", "noise_multiplier": 1.0, "width": 8, "generator_steps": 3},
    "features": {"kind": "features", "encoder": "tiny", "noise_multiplier": 0.5, "dimensions": 8, "vectors": 400},
    "choice": {"kind": "choice", "noise_multiplier": 1.0, "bins": 4, "images": 60},
}


def plan_of(kind: str, radii: str = "charged") -> Plan:
    """The stage, after those that it needs."""
    before = {"embedding": ["spectral"], "choice": ["spectral", "embedding"], "features": ["spectral"]}.get(kind, [])
    stages = [dict(STAGES[name]) for name in (*before, kind)]
    for stage in stages:
        if stage["kind"] in ("spectral", "appearance", "codec"):
            stage["radii"] = radii
    encoders = {"tiny": terms_for(b"", "resnet18", size=16).model_dump()} if kind == "features" else {}
    values = {
        "study": "sums",
        "image": {"size": 16},
        "labels": ["normal", "opacity"],
        "sites": {site: {"nominal_patients": 40} for site in SITES},
        "privacy": {"epsilon": 100.0, "delta": 1.0e-5},
        "encoders": encoders,
        "stages": stages,
        "release": [{"model": stages[0]["kind"], "images": 4}],
        "federation": {"quorum": 3},
    }
    return parse(values, Plan, "plan")


def cohort(seed: int) -> Cohort:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (60, 16, 16)).astype(np.uint8)
    return Cohort(images, rng.integers(0, 2, 60), np.repeat(np.arange(30), 2))


def run(plan: Plan, kind: str, released: dict) -> tuple[dict, Pooled, list[NoiseRecorder], object]:
    """All phases, one after the other, by three sites: the release read off the sums."""
    stage, summed = plan.stage(kind), EXCHANGES[kind].summed
    encoders = {"tiny": tiny_encoder()} if kind == "features" else {}
    strategy = object() if kind == "features" else strategy_of(plan, stage, released)
    sent = {} if kind == "features" else strategy.outbound(1, "")
    part, sums = import_named(summed.summand), {}
    recorders = [NoiseRecorder(TestNoise(number), "entry") for number in range(len(SITES))]
    sigma = stage.noise_multiplier * math.sqrt(len(SITES) / AMONG)
    for phase in summed.phases(plan):
        cells = np.zeros(phase.size, dtype=np.int64)
        for number, recorder in enumerate(recorders):
            job = StageJob(plan, "alder", stage, 1, sent, cohort(number), TestNoise(9), recorder, encoders)
            value = phase.join(part(job, phase, sums, sigma))
            mask = np.full(phase.size, number, dtype=np.uint64)
            words = recorder.summed_gaussian(value, phase.sensitivity, phase.noise_multiplier, AMONG, mask)
            cells += (words - mask).view(np.int64)
        sums |= phase.split(sum_of_cells(cells, phase.sensitivity))
    return dict(summed.read(plan, sums)), Pooled(sums, SITES, sigma), recorders, strategy


@pytest.mark.parametrize("kind", SUMMED)
def test_phases_run_as_they_are_charged_and_together_cost_one_release(kind):
    plan = plan_of(kind)
    summed, stage = EXCHANGES[kind].summed, plan.stage(kind)
    noises = summed.multipliers(plan)
    assert noises == pytest.approx([phase.noise_multiplier for phase in summed.phases(plan)], rel=1e-15)
    assert sum(1 / noise**2 for noise in noises) == pytest.approx(1 / stage.noise_multiplier**2, rel=1e-12)


@pytest.mark.parametrize("radii", ["fixed", "charged"])
@pytest.mark.parametrize("kind", SUMMED)
def test_the_sum_has_the_form_of_a_reply_and_is_fitted_like_one(kind, radii):
    plan = plan_of(kind, radii)
    released: dict = {}
    for stage in plan.stages:
        if stage.kind in (kind, "choice"):
            break
        if stage.kind in ("spectral", "embedding"):
            found, pooled, _, strategy = run(plan, stage.kind, released)
            strategy.absorb_sum(found, pooled, torch.Generator().manual_seed(0))
            released[stage.kind] = strategy.released()
    found, pooled, recorders, strategy = run(plan, kind, released)
    returned = EXCHANGES[kind].returned(plan)
    assert {name: value.shape for name, value in found.items()} == {n: spec.shape for n, spec in returned.items()}
    summed = EXCHANGES[kind].summed
    charged = [SummedGaussian(noise, AMONG) for noise in summed.multipliers(plan)]
    for recorder in recorders:
        assert same_mechanisms(charged, recorder.executed)
    summed.check(plan, pooled.noise_multiplier, 2.0 * 40 * len(SITES), found)
    name = "histograms" if kind == "choice" else "sums"
    with pytest.raises(VerificationError):
        summed.check(plan, pooled.noise_multiplier, 2.0 * 40 * len(SITES), {**found, name: found[name] + 1e4})
    if kind != "features":  # its strategy wants the encoder's file; see test_features_release
        assert isinstance(strategy, Summing)
        strategy.absorb_sum(found, pooled, torch.Generator().manual_seed(0))
        schema = EXCHANGES[kind].released(plan)
        assert all(schema[name].matches(value) for name, value in strategy.released().items())


def test_every_one_shot_release_may_be_summed():
    assert SUMMED == ["appearance", "choice", "codec", "embedding", "features", "spectral"]

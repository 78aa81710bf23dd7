"""Sites fitted apart (`by_site`) through every kind of stage: each model draws each site's images as that site's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.federations import make_federation
from support.studies import PLAN, POLICY, SIZE

from sfumato_client.anonymise import Job, Release, anonymise
from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.accounting.events import Declared
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.mechanisms.noise import SecureNoise, TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.study import run_study
from sfumato_server.rounds import card
from sfumato_server.rounds.checkpoint import Checkpoints
from sfumato_server.rounds.draws import draw_model
from sfumato_server.rounds.strategies import choice as choice_module
from sfumato_server.rounds.strategies import strategy_of

MODELS = ("spectral", "embedding", "gan", "flow")
DARK, BRIGHT = "alder", "birch"
SHIFTS = {DARK: -60, BRIGHT: 60, "cedar": 0}
APART = 60  # half of the grey levels between the machines of the two sites


def plan_values(sigma: float, architecture: str = "cinn") -> dict:
    """The tiny study with every kind of stage, and noise multiplier `sigma` for the spectral release."""
    values = copy.deepcopy(PLAN)
    spectral, gan, flow = values["stages"]
    values["stages"] = [
        {**spectral, "noise_multiplier": sigma, "by_site": True, "radii": "charged"},
        {"kind": "embedding", "noise_multiplier": 0.5, "width": 8, "generator_steps": 2},
        {**gan, "discriminators": "per-site", "generator_start": "embedding"},
        {**flow, "architecture": architecture},
        {"kind": "choice", "noise_multiplier": 1.0, "bins": 4, "images": 60},
    ]
    return values | {"release": [{"model": kind, "images": 16} for kind in MODELS], "utility": None}


def machine(site: str) -> Cohort:
    """Forty phantom patients seen by a machine that is darker or brighter than the others."""
    images, labels, patient_index = arrays(sum(site.encode()), 40, SIZE)
    return Cohort(np.clip(images.astype(np.int64) + SHIFTS[site], 0, 255).astype(np.uint8), labels, patient_index)


def federate(plan: Plan, kept: Checkpoints) -> dict:
    """Every stage of the plan, without ledgers and gate: arrays of each stage's model. What travels has its schema."""
    cohorts, released = {site: machine(site) for site in plan.sites}, {}
    rng = torch.Generator().manual_seed(0)
    for stage in plan.stages:
        strategy = strategy_of(plan, stage, released)
        for number in range(1, stage.rounds + 1):
            replies = {}
            for site, cohort in cohorts.items():
                noise, inbound = SecureNoise(), strategy.outbound(number, site)
                if stage.kind != "choice":  # what it sends are no models
                    assert {name: v.shape for name, v in inbound.items()} == shapes(EXCHANGES[stage.kind].sent(plan))
                job = StageJob(plan, site, stage, number, inbound, cohort, noise, NoiseRecorder(noise, "entry"))
                replies[site] = dict(train(job))
                assert {name: v.shape for name, v in replies[site].items()} == shapes(
                    EXCHANGES[stage.kind].returned(plan)
                )
            strategy.absorb(number, replies, rng)
        released[stage.kind] = strategy.released()
        if stage.kind in MODELS:
            kept.finish(stage.kind, released[stage.kind])
    return released


def shapes(schema) -> dict:
    return {name: spec.shape for name, spec in schema.items()}


@pytest.fixture(scope="module", params=["glow", "cinn"])
def done(request, tmp_path_factory):
    """Plan, folder of final models, and their arrays; so little noise that sites of 40 patients are told apart."""
    plan, folder = parse(plan_values(0.01, request.param), Plan, "plan"), tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice_module, "_STEPS", 5)
        # what an epsilon is has tests of its own, and takes longer than all of this
        patch.setattr(card, "epsilon", lambda *_: 1.0)
        return plan, folder / plan.digest, federate(plan, Checkpoints(folder, plan))


@pytest.mark.parametrize("kind", MODELS)
def test_images_of_a_site_look_like_that_sites(done, kind):
    plan, folder, _ = done
    drawn = {site: draw_model(folder / f"{kind}-model.safetensors", plan, "", "", site, 16, 0) for site in SHIFTS}
    assert {name.partition("-")[0] for name in drawn[DARK].names} == {DARK}
    assert drawn[BRIGHT].images.mean() - drawn[DARK].images.mean() > APART


def test_a_site_anonymises_by_its_own_components(done):
    plan, _, released = done
    nobody = Cohort(np.zeros((0, 16, 16), np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))

    def made(site):
        streams, recorder = Streams.of(TestNoise(0)), NoiseRecorder(TestNoise(0), "entry")
        return [anonymise(Job(Release(plan, site, released, nobody), item, streams, recorder)) for item in plan.release]

    sets = {site: made(site) for site in SHIFTS}
    for dark, bright in zip(sets[DARK], sets[BRIGHT], strict=True):
        assert bright.images.mean() - dark.images.mean() > APART
        assert set(dark.labels.tolist()) <= {0, 1}


def test_every_model_is_whole_and_is_a_candidate(done):
    plan, _, released = done
    for kind in MODELS:
        assert {name: value.shape for name, value in released[kind].items()} == shapes(EXCHANGES[kind].released(plan))
    assert released["choice"]["winner"][0] in range(len(MODELS))


@pytest.mark.slow
def test_a_whole_study_of_sites_apart_is_paid_for_passes_the_gate_and_is_released(tmp_path, monkeypatch):
    monkeypatch.setattr(choice_module, "_STEPS", 5)
    federation = make_federation(tmp_path, plan_values(0.2), {**POLICY, "allowed_stages": [*MODELS, "choice"]})
    assert run_study(federation.coordinator, federation, seed=1) == "completed", federation.result()["reason"]
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            train = [
                event for event in ledger.events("train", federation.plan.digest) if not isinstance(event, Declared)
            ]
        assert train == study_events(federation.plan, "train")
    assert [item["model"] for item in federation.result()["choice"]["candidates"]] == list(MODELS)

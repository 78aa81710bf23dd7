"""CADP: the label public or told by randomised response, the condition of decoding, and what was charged for both."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sfumato_client.anonymise import Job, Release, anonymise
from sfumato_client.anonymise.latents import LatentCodec, drawn_places
from sfumato_client.dataset import Cohort
from sfumato_common.accounting.events import Declared, LocalGaussian, LocalLaplace, RandomisedResponse
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.strict import parse
from sfumato_common.study.costs import release_events
from sfumato_common.study.plan import Plan

SIZE, LABELS = 16, ("normal", "mild", "severe")
SHARES = np.array([0.6, 0.3, 0.1])
ITEM = {"method": "cadp", "images": 40, "radius": 40.0, "epsilon": 500.0, "coordinates": 32, "label_epsilon": 1.0}


def plan_with(**item):
    dp = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.2, "clipping_norm": 1.0, "noise_multiplier": 1.0}
    return parse(
        {
            "study": "small",
            "image": {"size": SIZE},
            "labels": list(LABELS),
            "sites": {"alder": {"nominal_patients": 3000}, "birch": {"nominal_patients": 3000}},
            "privacy": {"epsilon": 10.0, "delta": 1e-5},
            "stages": [
                {"kind": "spectral", "bandwidth": 4, "clip_radius": 4.0, "noise_multiplier": 0.5, "by_site": True},
                {"kind": "flow", "architecture": "cinn", "hidden": 8, "learning_rate": 1e-3, **dp},
            ],
            "release": [{**ITEM, **item}],
            "federation": {"quorum": 1},
        },
        Plan,
        "test",
    )


def models_of(plan):
    """Released arrays of three labels at two sites, their means far apart, and a flow near its start."""
    d, rng = Layout.of(plan).features, np.random.default_rng(0)
    spectral = {
        "spectral/shares": np.concatenate([SHARES, SHARES[::-1]]).astype(np.float32) / 2,
        "spectral/mean": rng.normal(size=(6, d)).astype(np.float32),
        "spectral/factor": np.tile(np.eye(d, dtype=np.float32) * 0.2, (6, 1, 1)),
        "spectral/signal": np.tile(np.eye(d, dtype=np.float32), (6, 1, 1)),
        "spectral/tail": np.full(6, 0.7, dtype=np.float32),
    }
    flow = initial_model("flow", plan)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.02 * torch.sin(torch.arange(parameter.numel())).reshape(parameter.shape)
    return {"spectral": spectral, "flow": {**spectral, **to_arrays("flow", flow)}}


def job_of(plan, label=1, patients=60, seed=3, **more):
    images = np.random.default_rng(1).integers(0, 256, (patients, SIZE, SIZE), dtype=np.uint8)
    cohort = Cohort(images, np.full(patients, label, dtype=np.int64), np.arange(patients))
    return Job(
        Release(plan, "alder", models_of(plan), cohort, **more),
        plan.release[0],
        Streams.of(TestNoise(seed)),
        NoiseRecorder(TestNoise(seed), "entry"),
    )


def spy(monkeypatch, name):
    """The labels that the codec is given at `name`."""
    seen, original = [], getattr(LatentCodec, name)

    def noted(self, values, labels, *more):
        seen.append(labels.copy())
        return original(self, values, labels, *more)

    monkeypatch.setattr(LatentCodec, name, noted)
    return seen


@pytest.mark.parametrize(
    ("terms", "spends"),
    [
        ({}, [LocalLaplace(500.0), RandomisedResponse(3, 1.0)]),
        ({"decode": "resampled"}, [LocalLaplace(500.0), RandomisedResponse(3, 1.0)]),
        ({"label": "public", "label_epsilon": None}, [LocalLaplace(500.0)]),
        (
            {"mechanism": "gaussian", "clip": "l2", "epsilon": None, "noise_multiplier": 0.7},
            [LocalGaussian(0.7), RandomisedResponse(3, 1.0)],
        ),
    ],
)
def test_what_ran_is_what_was_charged_in_that_order(terms, spends):
    plan = plan_with(**terms)
    found = anonymise(job_of(plan))
    assert list(found.spends) == spends
    assert [event for event in release_events(plan, plan.release[0]) if not isinstance(event, Declared)] == spends
    level = "formal, labels public" if "label" in terms else "formal"
    assert (found.method, found.model, found.guarantee, found.patients) == ("cadp", "flow", level, 1)
    assert found.images.shape == (40, SIZE, SIZE)
    again = anonymise(job_of(plan))
    assert np.array_equal(found.images, again.images) and np.array_equal(found.labels, again.labels)


def test_randomised_labels_have_the_stated_odds_and_the_true_one_is_encoded(monkeypatch):
    encoded, decoded = spy(monkeypatch, "encode"), spy(monkeypatch, "decode")
    plan = plan_with(images=2000, coordinates=4)
    found = anonymise(job_of(plan, patients=2000))
    assert (encoded[0] == 1).all()
    assert np.array_equal(decoded[0], found.labels)
    odds = np.array([1.0, math.e, 1.0]) / (math.e + 2)
    assert stats.chisquare(np.bincount(found.labels, minlength=3), odds * 2000).pvalue > 1e-6


def test_public_labels_are_the_records_own():
    found = anonymise(job_of(plan_with(label="public", label_epsilon=None)))
    assert (found.labels == 1).all()


@pytest.mark.parametrize("terms", [{}, {"label": "public", "label_epsilon": None}])
def test_resampled_conditions_come_from_the_released_shares_and_are_the_labels(monkeypatch, terms):
    decoded = spy(monkeypatch, "decode")
    plan = plan_with(images=2000, coordinates=4, decode="resampled", **terms)
    found = anonymise(job_of(plan, patients=2000))
    assert np.array_equal(decoded[0], found.labels)
    assert stats.chisquare(np.bincount(found.labels, minlength=3), SHARES * 2000).pvalue > 1e-6


def test_an_image_looks_as_its_released_label_says():
    """Almost no noise on the latents, and every label a lie or not: the record's image only where it is not."""
    plan = plan_with(epsilon=1e9, radius=1e4, coordinates=None)
    job = job_of(plan)
    places = drawn_places(job_of(plan))
    found = anonymise(job)
    error = np.abs(found.images.astype(int) - places.images).mean(axis=(1, 2))
    told = found.labels == places.labels
    assert 0 < told.sum() < 40
    assert error[told].max() < 3 < error[~told].min()


def test_places_without_a_patient_answer_like_the_shares():
    plan = plan_with(images=2000, coordinates=4)
    found = anonymise(job_of(plan, patients=0))
    odds = (1.0 + SHARES * (math.e - 1.0)) / (math.e + 2)
    assert stats.chisquare(np.bincount(found.labels, minlength=3), odds * 2000).pvalue > 1e-6


def test_the_report_adds_the_labels_epsilon_to_the_total(tmp_path):
    anonymise(job_of(plan_with(), steward_folder=tmp_path))
    lines = (tmp_path / "cadp-flow.txt").read_text().splitlines()
    assert lines[0].startswith("eps_total 501 (pure")
    assert lines[1].startswith("eps per coordinate 15.625 ")
    assert "randomised response (epsilon 1 of it)" in lines[2]

"""The spectral model of one's own cohorts, and TSTR in one call."""

import numpy as np
import pytest
import torch

from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.generators.spectral.local import fit_spectral
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.tstr import fit_linear, macro_auc, tstr
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan


def plan_of(noise_multiplier):
    value = {
        "study": "small",
        "image": {"size": 16},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 40}, "birch": {"nominal_patients": 40}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 6, "clip_radius": 4.0, "noise_multiplier": noise_multiplier},
        ],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def test_a_site_pays_one_release_and_the_model_is_near_its_images():
    images, labels, patients = arrays(1, 60, 16)
    recorder = NoiseRecorder(TestNoise(1), "none")
    model = fit_spectral(plan_of(0.01), {"alder": (images, labels, patients)}, recorder.gaussian)
    (ran,) = recorder.executed
    assert isinstance(ran, GaussianRelease)
    assert ran.noise_multiplier == pytest.approx(0.01)
    drawn = model.sample(torch.from_numpy(np.repeat([0, 1], 200)), TorchDraws(torch.Generator().manual_seed(0)))
    for label in (0, 1):
        real = images[labels == label].mean(axis=0) / 127.5 - 1
        assert np.corrcoef(drawn[200 * label : 200 * (label + 1), 0].mean(dim=0).ravel(), real.ravel())[0, 1] > 0.8


def test_several_sites_add_up():
    halves = {"alder": arrays(1, 30, 16), "birch": arrays(1, 30, 16, first=31)}
    together = arrays(1, 60, 16)
    one = fit_spectral(plan_of(0.001), {"alder": together}, NoiseRecorder(TestNoise(1), "none").gaussian)
    two = fit_spectral(plan_of(0.001), halves, NoiseRecorder(TestNoise(2), "none").gaussian)
    assert torch.allclose(one.shares, two.shares, atol=0.02)


def test_tstr_is_the_linear_models_auc_and_its_interval_over_patients():
    rng = np.random.default_rng(0)
    labels, truth, patients = np.arange(80) % 2, np.arange(60) % 2, np.arange(60) // 3
    synthetic = rng.normal(size=(80, 5)) + labels[:, None]
    real = rng.normal(size=(60, 5)) + truth[:, None]
    found = tstr(synthetic, labels, real, truth, patients, np.random.default_rng(1))
    assert found.auc == macro_auc(fit_linear(synthetic, labels, 2).probabilities(real), truth)
    assert found.low < found.auc < found.high
    assert found.auc > 0.8
    assert tstr(synthetic, labels, real, truth, patients, np.random.default_rng(1)) == found
    chance = tstr(synthetic, rng.permutation(labels), real, truth, patients, np.random.default_rng(1))
    assert chance.auc < found.low
    assert np.isnan(tstr(synthetic, labels, real, np.zeros_like(truth), patients, rng).auc)

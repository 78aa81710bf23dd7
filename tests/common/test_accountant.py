"""The accountant against known values and against itself; events to JSON and back."""

from __future__ import annotations

import json
import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from sfumato_common.config.loader import parse
from sfumato_common.config.plan import Plan
from sfumato_common.errors import LedgerError
from sfumato_common.privacy.accountant import epsilon, forecast, grouped
from sfumato_common.privacy.adjacency import SMALLEST_NOISE
from sfumato_common.privacy.events import (
    GATE_VERDICT,
    Declared,
    GaussianRelease,
    SampledGaussian,
    event_from_json,
    event_to_json,
    round_event,
    study_events,
)

DELTA = 1e-5


def analytic(sigma, delta=DELTA):
    """Exact epsilon of one Gaussian mechanism (Balle and Wang 2018, theorem 8)."""
    return brentq(
        lambda e: norm.cdf(0.5 / sigma - e * sigma) - math.exp(e) * norm.cdf(-0.5 / sigma - e * sigma) - delta, 0, 200
    )


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.73])
def test_one_gaussian_is_the_analytic_one(sigma):
    assert epsilon([GaussianRelease(sigma)], DELTA) == pytest.approx(analytic(sigma), rel=2e-3)


def test_the_textbook_value():
    assert epsilon([GaussianRelease(1.0)], DELTA) == pytest.approx(4.377, abs=5e-3)


def test_full_batches_compose_like_one_with_less_noise():
    assert epsilon([GaussianRelease(2.0)] * 4, DELTA) == pytest.approx(analytic(1.0), rel=2e-3)


def test_sampling_at_rate_one_is_no_sampling():
    sampled = epsilon([SampledGaussian(2.0, 1.0, 4)], DELTA)
    assert sampled == pytest.approx(epsilon([GaussianRelease(2.0)] * 4, DELTA), rel=5e-3)


def test_it_is_monotone():
    base = epsilon([SampledGaussian(1.0, 0.05, 50)], DELTA)
    assert epsilon([SampledGaussian(1.0, 0.05, 100)], DELTA) > base
    assert epsilon([SampledGaussian(1.0, 0.1, 50)], DELTA) > base
    assert epsilon([SampledGaussian(0.8, 0.05, 50)], DELTA) > base
    assert epsilon([SampledGaussian(1.0, 0.05, 50), GaussianRelease(5.0)], DELTA) > base
    assert epsilon([SampledGaussian(1.0, 0.05, 50)], 1e-6) > base


def test_grouping_changes_nothing():
    rounds = [SampledGaussian(1.0, 0.05, 10)] * 3 + [GaussianRelease(3.0)] * 2
    mixed = [rounds[0], rounds[3], GATE_VERDICT, rounds[1], rounds[4], rounds[2]]
    together = [SampledGaussian(1.0, 0.05, 30), GaussianRelease(3.0), GaussianRelease(3.0)]
    assert grouped(rounds) == grouped(mixed) == grouped(together)
    assert epsilon(mixed, DELTA) == pytest.approx(epsilon(together, DELTA), rel=1e-9)
    assert grouped([SampledGaussian(1.0, 0.05, 1), SampledGaussian(1.0, 0.06, 1)]).total() == 2


def test_nothing_costs_nothing_and_declared_bits_stand_beside():
    assert epsilon([], DELTA) == 0.0
    assert epsilon([GATE_VERDICT], DELTA) == 0.0


def test_unknown_events_are_refused():
    with pytest.raises(TypeError, match="never approximated"):
        epsilon([object()], DELTA)


def test_hopelessly_small_noise_is_answered_at_once():
    assert epsilon([GaussianRelease(SMALLEST_NOISE / 2)], DELTA) == math.inf
    assert epsilon([SampledGaussian(1e-9, 0.01, 10**7), GaussianRelease(5.0)], DELTA) == math.inf


@pytest.mark.parametrize("event", [GaussianRelease(1.5), SampledGaussian(0.9, 0.01, 40), Declared("a bit", 1)])
def test_events_survive_json(event):
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"mechanism": "LaplaceRelease", "scale": 1.0},
        {"mechanism": "GaussianRelease"},
        {"mechanism": "GaussianRelease", "noise_multiplier": 1.0, "refund": 2},
        {"mechanism": None},
    ],
)
def test_unknown_stored_events_are_refused(value):
    with pytest.raises(LedgerError):
        event_from_json(value)


def test_forecast_is_the_composition_of_the_plan_stage_by_stage():
    stage = {"clipping_norm": 1.0, "learning_rate": 0.001, "noise_multiplier": 1.2, "sampling_rate": 0.05}
    plan = parse(
        {
            "study": "chest",
            "image": {"size": 16},
            "labels": ["normal", "abnormal"],
            "sites": {"north": {"nominal_patients": 100}},
            "privacy": {"epsilon": 10.0, "delta": DELTA},
            "stages": [
                {"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0},
                {"kind": "gan", "rounds": 3, "local_steps": 4, **stage},
            ],
            "release": [{"model": "gan", "images": 12}],
            "utility": {"noise_multiplier": 4.0},
            "federation": {"quorum": 1},
        },
        Plan,
        "plan",
    )
    assert study_events(plan, "train") == [GaussianRelease(2.0)] + [SampledGaussian(1.2, 0.05, 4)] * 3
    assert round_event(plan.stage("gan")) == SampledGaussian(1.2, 0.05, 4)
    cost = forecast(plan, DELTA)
    assert [line.steps for line in cost.stages] == [1, 12]
    assert cost.stages[0].epsilon_after == pytest.approx(epsilon([GaussianRelease(2.0)], DELTA))
    assert cost.epsilon_train == pytest.approx(epsilon(study_events(plan, "train"), DELTA))
    assert cost.epsilon_holdout == pytest.approx(epsilon([GaussianRelease(4.0)], DELTA))
    assert forecast(plan, DELTA, [GaussianRelease(3.0)]).epsilon_train > cost.epsilon_train

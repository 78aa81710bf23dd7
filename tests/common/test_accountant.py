"""The accountant against known values and against itself; events to JSON and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import laplace, norm

from sfumato_common.accounting import accountant
from sfumato_common.accounting.accountant import cohort_costs, cost, count_mechanisms, epsilon
from sfumato_common.accounting.events import (
    AboveThreshold,
    Declared,
    ExponentialMechanism,
    GaussianRelease,
    KAverageGaussian,
    LaplaceRelease,
    LocalGaussian,
    LocalLaplace,
    RandomisedResponse,
    SampledGaussian,
    event_from_json,
    event_to_json,
)
from sfumato_common.accounting.pld import SMALLEST_NOISE
from sfumato_common.errors import LedgerError
from sfumato_common.strict import parse
from sfumato_common.study.costs import GATE_VERDICT, study_events
from sfumato_common.study.forecast import forecast
from sfumato_common.study.plan import Plan

DELTA = 1e-5
ONE_OF_EACH = [
    GaussianRelease(1.5),
    SampledGaussian(0.9, 0.01, 40),
    LaplaceRelease(2.0),
    RandomisedResponse(3, 0.5),
    KAverageGaussian(2.0, 5),
    ExponentialMechanism(0.3),
    AboveThreshold(0.2),
    LocalLaplace(0.4),
    LocalGaussian(2.5),
]


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
    assert count_mechanisms(rounds) == count_mechanisms(mixed) == count_mechanisms(together)
    assert epsilon(mixed, DELTA) == pytest.approx(epsilon(together, DELTA), rel=1e-9)
    assert count_mechanisms([SampledGaussian(1.0, 0.05, 1), SampledGaussian(1.0, 0.06, 1)]).total() == 2


def test_nothing_costs_nothing_and_declared_bits_stand_beside():
    assert epsilon([], DELTA) == 0.0
    assert epsilon([GATE_VERDICT], DELTA) == 0.0


def test_unknown_events_are_refused():
    with pytest.raises(TypeError, match="never approximated"):
        epsilon([object()], DELTA)
    with pytest.raises(LedgerError, match="impossible parameters"):
        epsilon([SampledGaussian(1.0, 0.1, -100)], DELTA)


def test_hopelessly_small_noise_is_answered_at_once():
    assert epsilon([GaussianRelease(SMALLEST_NOISE / 2)], DELTA) == math.inf
    assert epsilon([SampledGaussian(1e-9, 0.01, 10**7), GaussianRelease(5.0)], DELTA) == math.inf
    assert epsilon([LaplaceRelease(1e-6)], DELTA) == math.inf
    assert epsilon([AboveThreshold(1e6)], DELTA, "replace-one") == math.inf
    assert epsilon([LocalLaplace(1.4e5)], DELTA) == epsilon([LocalGaussian(1e-3)], DELTA) == math.inf
    assert cost([ExponentialMechanism(1e6)], DELTA).add_remove_rdp == math.inf


def pure(value, delta=DELTA):
    """Exact epsilon at `delta` of any mechanism that is no better than a pure one (randomised response over two)."""
    return math.log(math.exp(value) - delta * (1 + math.exp(value)))


@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_replacing_under_a_gaussian_is_half_its_noise(sigma):
    assert epsilon([GaussianRelease(sigma)], DELTA, "replace-one") == pytest.approx(analytic(sigma / 2), rel=2e-3)


def test_replacing_under_full_batches_is_half_their_noise():
    sampled = epsilon([SampledGaussian(2.0, 1.0, 4)], DELTA, "replace-one")
    assert sampled == pytest.approx(analytic(0.5), rel=5e-3)


@pytest.mark.parametrize("k", [5, 20])
def test_an_average_of_k_costs_one_gaussian_and_the_root_of_two_where_two_means_move(k):
    assert epsilon([KAverageGaussian(1.3, k)], DELTA) == pytest.approx(analytic(1.3), rel=2e-3)
    replaced = epsilon([KAverageGaussian(1.3, k)], DELTA, "replace-one")
    assert replaced == pytest.approx(analytic(1.3 / math.sqrt(2)), rel=2e-3)
    twice = epsilon([KAverageGaussian(1.3, k)] * 2, DELTA, "replace-one")
    assert twice == pytest.approx(analytic(1.3 / 2), rel=2e-3)


@pytest.mark.parametrize("adjacency", ["add-remove", "replace-one"])
def test_vectors_noised_one_by_one_cost_the_same_either_way(adjacency):
    assert epsilon([LocalGaussian(1.3)], DELTA, adjacency) == pytest.approx(analytic(1.3), rel=2e-3)
    assert epsilon([LocalGaussian(2.6)] * 4, DELTA, adjacency) == pytest.approx(analytic(1.3), rel=2e-3)
    assert epsilon([LocalLaplace(0.7)], 1e-3, adjacency) == pytest.approx(pure(0.7, 1e-3), abs=2e-4)
    # the latent and the label of one record: no more than the sum, and more than the larger of the two
    both = epsilon([LocalLaplace(0.7), RandomisedResponse(2, 0.5)], DELTA, adjacency)
    assert 0.7 < both <= 1.2 + 2e-4


def delta_of_laplace(shifts, epsilon):
    """Hockey-stick divergence at `epsilon` of unit Laplace noise on two vectors that differ by `shifts`, on a grid."""
    x = np.linspace(-40.0, 40.0 + max(shifts), 400_001)
    losses, masses = np.zeros(1), np.ones(1)
    for shift in shifts:
        middle = (x[1:] + x[:-1]) / 2
        loss = np.round((np.abs(middle - shift) - np.abs(middle)) * 1000) / 1000
        own, at = np.unique(loss, return_inverse=True)
        mass = np.bincount(at, np.diff(laplace.cdf(x)))
        sums = (losses[:, None] + own[None]).ravel()
        losses, where = np.unique(np.round(sums, 3), return_inverse=True)
        masses = np.bincount(where, (masses[:, None] * mass[None]).ravel())
    return float((masses * np.maximum(0.0, -np.expm1(epsilon - losses))).sum())


@pytest.mark.parametrize("shifts", [(1.0,), (0.5, 0.5), (0.05, 0.95), (0.25, 0.25, 0.5)])
def test_a_noised_vector_never_costs_more_than_its_pure_epsilon(shifts):
    """However a change of one scale's length is spread over coordinates; in a single one it shows most."""
    for at in (0.2, 0.5, 0.8):
        spread = delta_of_laplace(shifts, at)
        assert spread <= delta_of_laplace((1.0,), at) + 2e-3
        assert epsilon([LocalLaplace(1.0)], spread) > at


def test_laplace_has_its_closed_form():
    # delta(e) = 1 - exp((e - 1/b) / 2) for e in [0, 1/b] (Balle et al. 2018, theorem 3)
    assert epsilon([LaplaceRelease(0.5)], 1e-3) == pytest.approx(2 + 2 * math.log(1 - 1e-3), abs=1e-4)
    assert epsilon([LaplaceRelease(0.5)], 1e-3, "replace-one") == pytest.approx(4 + 2 * math.log(1 - 1e-3), abs=1e-4)


@pytest.mark.parametrize("event", [ExponentialMechanism(0.7), AboveThreshold(0.7)])
def test_pure_mechanisms_are_no_better_than_their_epsilon(event):
    assert epsilon([event], 1e-3) == pytest.approx(pure(0.7, 1e-3), abs=2e-4)
    assert epsilon([event], 1e-3, "replace-one") == pytest.approx(pure(1.4, 1e-3), abs=2e-4)
    # two runs over two answers: both adverse, or one (Kairouz et al. 2015)
    p = math.exp(0.7) / (1 + math.exp(0.7))
    at_zero = p**2 - (1 - p) ** 2
    assert epsilon([event] * 2, at_zero) == pytest.approx(0, abs=2e-4)


def test_randomised_response_over_k_answers():
    # P(truth) - e^x P(lie) for x below epsilon: one answer speaks for the one against the other
    for categories in (2, 5):
        odds = math.exp(1.2)
        delta = 1e-3
        exact = math.log(odds - delta * (odds + categories - 1))
        for adjacency in ("add-remove", "replace-one"):
            found = epsilon([RandomisedResponse(categories, 1.2)], delta, adjacency)
            assert found == pytest.approx(exact, abs=2e-4)


def test_order_changes_nothing():
    forward = epsilon(ONE_OF_EACH, DELTA)
    accountant._epsilon.cache_clear()
    assert epsilon(ONE_OF_EACH[::-1], DELTA) == pytest.approx(forward, rel=1e-9)
    assert forward > max(epsilon([event], DELTA) for event in ONE_OF_EACH)


GRID = [
    *([SampledGaussian(sigma, rate, 40)] for sigma, rate in ((0.8, 0.01), (1.0, 0.1), (4.0, 0.3))),
    *([event] for event in ONE_OF_EACH),
    [GaussianRelease(0.8), SampledGaussian(1.1, 0.09, 102)],
    ONE_OF_EACH,
]


@pytest.mark.parametrize("events", GRID)
def test_renyi_bounds_it_and_replacing_lies_between_once_and_twice_over(events):
    found = cost(events, DELTA)
    assert found.add_remove == epsilon(events, DELTA)
    assert found.add_remove <= found.add_remove_rdp * 1.001 + 1e-4
    assert found.add_remove_rdp <= found.add_remove * 1.5 + 0.5  # a bound that bounds nothing would check nothing
    assert found.replace_one >= found.add_remove - 1e-9
    # removing one and adding another (group privacy, Dwork and Roth 2014, theorem 2.2 with its delta)
    once = epsilon(events, 1e-8)
    assert epsilon(events, (1 + math.exp(once)) * 1e-8, "replace-one") <= 2 * once


def test_accountants_that_contradict_each_other_are_not_believed(monkeypatch):
    monkeypatch.setattr(accountant, "epsilon_rdp", lambda tally, delta: 4.0)
    with pytest.raises(LedgerError, match="contradict"):
        cost([GaussianRelease(1.0)], DELTA)  # 4.377


def test_a_patient_who_changes_cohort_pays_in_both():
    both = RandomisedResponse(2, 1.0)  # costs the same added or replaced, so that moving over is the worst
    found = cohort_costs([both], [both], DELTA)
    assert found.patient.add_remove == found.train.add_remove == found.holdout.add_remove
    assert found.patient.replace_one == epsilon([both, both], DELTA) > found.train.replace_one
    assert cohort_costs([], [], DELTA).patient.replace_one == 0.0


@pytest.mark.parametrize("event", [*ONE_OF_EACH, Declared("a bit", 1)])
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
        {"mechanism": "Declared", "what": "a bit", "bits": True},
        {"mechanism": "SampledGaussian", "noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": -5},
        {"mechanism": "LaplaceRelease", "noise_multiplier": "1"},
        {"mechanism": "LaplaceRelease", "noise_multiplier": math.inf},
        {"mechanism": "RandomisedResponse", "categories": 1, "epsilon": 1.0},
        {"mechanism": "RandomisedResponse", "categories": 2.0, "epsilon": 1.0},
        {"mechanism": "KAverageGaussian", "noise_multiplier": 1.0, "k": 1},
        {"mechanism": "KAverageGaussian", "noise_multiplier": math.nan, "k": 5},
        {"mechanism": "ExponentialMechanism", "epsilon": 0.0},
        {"mechanism": "LocalLaplace", "epsilon": -0.5},
        {"mechanism": "LocalLaplace", "epsilon": 1.0, "coordinates": 4},
        {"mechanism": "LocalGaussian", "noise_multiplier": 0.0},
        {"mechanism": "AboveThreshold", "epsilon": -1.0},
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
    assert plan.stage("gan").event == SampledGaussian(1.2, 0.05, 4)
    found = forecast(plan, DELTA)
    assert [line.steps for line in found.stages] == [1, 12]
    assert found.stages[0].epsilon_after == pytest.approx(epsilon([GaussianRelease(2.0)], DELTA))
    assert found.epsilon_train == pytest.approx(epsilon(study_events(plan, "train"), DELTA))
    assert found.epsilon_holdout == pytest.approx(epsilon([GaussianRelease(4.0)], DELTA))
    assert found.totals == cohort_costs(study_events(plan, "train"), study_events(plan, "holdout"), DELTA)
    on_top = forecast(plan, DELTA, [GaussianRelease(3.0)], [GaussianRelease(2.5)])
    assert on_top.epsilon_train == epsilon([GaussianRelease(3.0), *study_events(plan, "train")], DELTA)
    assert on_top.epsilon_holdout == epsilon([GaussianRelease(2.5), GaussianRelease(4.0)], DELTA)

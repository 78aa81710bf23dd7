"""What an attack can reach at most, against closed forms and against an attack that reaches it."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease, LocalLaplace, RandomisedResponse, SampledGaussian
from sfumato_common.accounting.tradeoff import FALSE_POSITIVE_RATES, reach

DELTA = 1e-5


def test_one_gaussian_release_has_its_closed_forms():
    found = reach([GaussianRelease(1.0)], [GaussianRelease(3.0)], DELTA)
    assert found.mu == pytest.approx(1.0, abs=1e-4)
    assert ndtr(1 / np.sqrt(2)) <= found.auc <= ndtr(1 / np.sqrt(2)) + 2e-3
    for rate in FALSE_POSITIVE_RATES:
        assert found.tpr[rate] == pytest.approx(ndtr(ndtri(rate) + 1.0), abs=1e-3)
        assert found.tpr[rate] >= ndtr(ndtri(rate) + 1.0) - 1e-6
    # two patients move the sum twice as far
    pair = epsilon([GaussianRelease(0.5)], DELTA)
    assert pair - 1e-3 <= found.pair <= pair + 0.05
    assert found.epsilon_at[1e-5] == pytest.approx(epsilon([GaussianRelease(1.0)], DELTA))


def test_a_pure_mechanism_has_the_ceilings_of_randomised_response():
    for event in (RandomisedResponse(2, 1.0), LocalLaplace(1.0)):
        found = reach([event], [], DELTA)
        # (1, 0): TPR is e FPR until the truth is as likely told as not
        assert found.tpr[0.1] == pytest.approx(0.1 * np.e, abs=1e-3)
        truth = np.e / (1 + np.e)
        assert truth - 1e-3 <= found.auc <= truth + 2e-3
        assert found.mu == pytest.approx(-2 * ndtri(1 / (1 + np.e)), abs=1e-3)
        assert 2.0 - 1e-3 <= found.pair <= 2.05


def test_the_best_attack_on_a_sampled_gaussian_stays_below_and_comes_near():
    rate, sigma = 0.3, 0.7
    found = reach([SampledGaussian(sigma, rate, 1)], [], DELTA)
    rng = np.random.default_rng(0)
    out = rng.normal(0, sigma, 400_000)
    own = rng.normal(0, sigma, 400_000) + (rng.random(400_000) < rate)
    for false, ceiling in found.tpr.items():
        reached = np.mean(own > np.quantile(out, 1 - false))
        assert ceiling - 0.05 <= reached <= ceiling + 0.005


def test_the_cohort_that_pays_more_is_the_one_that_is_stated():
    low, high = GaussianRelease(4.0), GaussianRelease(1.0)
    assert reach([low], [high], DELTA) == reach([high], [low], DELTA)
    assert np.isinf(reach([GaussianRelease(0.01)], [], DELTA).mu)
    nothing = reach([], [], DELTA)
    assert (nothing.mu, nothing.auc, nothing.epsilon_at[1e-8]) == (0.0, pytest.approx(0.5, abs=2e-3), 0.0)

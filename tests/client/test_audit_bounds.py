"""Shadow attacks, one-run bounds and white-box estimates: right where the answer is known, and blind to nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from sfumato_client.audit.attacks.canaries import chance_of, least_epsilon, one_run
from sfumato_client.audit.attacks.intervals import area, newcombe
from sfumato_client.audit.attacks.shadow import shadow_scores
from sfumato_client.audit.attacks.white_box import gaussian_mu, pure_epsilon
from sfumato_common.accounting.calibration import gaussian_epsilon

PEOPLE, COHORT, WIDTH, FITS = 60, 30, 200, 200


class Sums:
    """A one-shot release of clipped vectors: their sum, each of length 1, and Gaussian noise."""

    def __init__(self, seed, noise):
        self.rng, self.noise = np.random.default_rng(seed), noise
        rows = self.rng.normal(0, 1, (PEOPLE, WIDTH))
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def clean(self, cohort):
        return self.rows[cohort].sum(axis=0)

    def release(self, cohort):
        return self.clean(cohort) + self.rng.normal(0, self.noise, WIDTH)

    def attacked(self, behind):
        scores = shadow_scores(self.release, self.clean, self.release(behind), PEOPLE, COHORT, self.rng, FITS)
        return area(scores[:COHORT], scores[COHORT:])


def test_a_shadow_attack_knows_the_cohort_of_sums_without_noise():
    for seed in range(3):
        found = Sums(seed, 1e-6).attacked(np.arange(COHORT))
        assert found > 0.9
        assert newcombe(found, COHORT, PEOPLE - COHORT)[0] > 0.5


def test_a_shadow_attack_stays_under_what_the_noise_allows():
    """A Gaussian release of mu lets no attack on a patient have a larger AUC than Phi(mu / sqrt 2)."""
    noise = 2.0
    aucs = [Sums(seed, noise).attacked(np.arange(COHORT)) for seed in range(6)]
    ceiling = norm.cdf(1 / noise / math.sqrt(2))
    assert np.mean(aucs) < ceiling + 2 * np.std(aucs) / math.sqrt(6)


def test_a_shadow_attack_on_a_release_of_others_stays_at_chance():
    alarms = 0
    for seed in range(10):
        sums = Sums(seed, 0.1)
        stranger = np.random.default_rng(99).normal(0, 1, (COHORT, WIDTH))
        released = (stranger / np.linalg.norm(stranger, axis=1, keepdims=True)).sum(axis=0)
        scores = shadow_scores(sums.release, sums.clean, released, PEOPLE, COHORT, sums.rng, FITS)
        alarms += newcombe(area(scores[:COHORT], scores[COHORT:]), COHORT, PEOPLE - COHORT)[0] > 0.5
    assert alarms <= binom.ppf(0.999, 10, 0.025)


def test_a_shadow_attack_with_too_few_fits_says_so():
    sums = Sums(0, 1.0)
    with pytest.raises(ValueError, match="fit more"):
        shadow_scores(sums.release, sums.clean, sums.clean(np.arange(3)), PEOPLE, COHORT, sums.rng, 9)


def planted(mu, seed, canaries=1000):
    """Scores of canaries under a mu-Gaussian mechanism, and their coins."""
    rng = np.random.default_rng(seed)
    coins = rng.random(canaries) < 0.5
    return mu * coins + rng.normal(0, 1, canaries), coins


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, 2.0])
def test_one_run_proves_no_more_than_is_true(mu):
    """40 runs at 95 %: more false proofs than an exact binomial test allows would be no bound."""
    true = gaussian_epsilon(mu, 1e-5) if mu else 0.0
    false = sum(one_run(*planted(mu, seed), 200, 1e-5).epsilon > true for seed in range(40))
    assert false <= binom.ppf(0.999, 40, 0.05)


def test_one_run_proves_much_where_the_noise_is_off_and_half_the_noise_shows():
    assert one_run(*planted(1e6, 0), 500, 1e-5).epsilon > 5.0
    weak, strong = (np.mean([one_run(*planted(mu, s), 200, 1e-5).epsilon for s in range(8)]) for mu in (1.0, 2.0))
    assert 0.2 < weak < gaussian_epsilon(1.0, 1e-5)
    assert strong > 1.4 * weak


def test_a_bound_from_one_run_is_the_binomial_tail_at_delta_nothing():
    assert chance_of(100, 50, 40, 0.0, 0.0) == pytest.approx(binom.sf(39, 50, 0.5))
    assert chance_of(100, 50, 40, 1.0, 1e-4) > chance_of(100, 50, 40, 1.0, 0.0)
    assert least_epsilon(100, 50, 25, 1e-5, 0.95) == 0.0
    assert least_epsilon(1000, 50, 50, 0.5, 0.95) == 0.0, "a delta of a half is no promise, and nothing breaks it"


def test_guesses_are_chosen_before_and_fit_the_canaries():
    scores, coins = planted(1.0, 0, 10)
    for guesses in (0, 1, 12):
        with pytest.raises(ValueError, match="guesses"):
            one_run(scores, coins, guesses, 1e-5)


def test_a_mu_and_an_epsilon_are_found_and_never_by_luck():
    rng = np.random.default_rng(0)
    found = gaussian_mu(rng.normal(0, 3, 800), rng.normal(3, 3, 800), 0.999)
    assert found.at_least < 1.0 < found.estimate + 0.2
    assert found.at_least > 0.7
    assert gaussian_mu(np.zeros(10), np.ones(10), 0.999).at_least == math.inf, "without noise nothing is hidden"
    same = pure_epsilon(rng.normal(0, 1, 4000), rng.normal(0, 1, 4000), 0.999)
    apart = pure_epsilon(rng.laplace(0, 1, 40_000), rng.laplace(1, 1, 40_000), 0.999)
    assert same.at_least < 0.1
    assert 0.7 < apart.at_least <= 1.0

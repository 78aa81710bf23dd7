"""Secure noise and the two mechanisms: distribution, grid, determinism where it is meant, refusal of bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sfumato_common.privacy.histogram import noisy_score_histogram
from sfumato_common.privacy.mechanisms import gaussian_release, grid_of
from sfumato_common.privacy.meter import Meter
from sfumato_common.privacy.noise import SecureNoise, TestNoise


def test_normal_follows_the_normal_distribution():
    drawn = SecureNoise().normal((200_000,), 3.0)
    assert drawn.dtype == np.float64
    assert stats.kstest(drawn / 3.0, "norm").pvalue > 1e-5
    assert abs(drawn.std() / 3.0 - 1.0) < 0.01
    halves = drawn.reshape(2, -1)  # Box-Muller pairs must be independent, also in size
    assert abs(np.corrcoef(halves)[0, 1]) < 0.02
    assert abs(np.corrcoef(np.abs(halves))[0, 1]) < 0.02


def test_uniform_is_uniform_and_never_touches_its_ends():
    drawn = SecureNoise().uniform((100_000,))
    assert stats.kstest(drawn, "uniform").pvalue > 1e-5
    assert drawn.min() > 0.0
    assert drawn.max() < 1.0


def test_two_secure_sources_differ_and_one_never_repeats():
    first, second = SecureNoise(), SecureNoise()
    draws = [source.normal((4,), 1.0).tobytes() for source in (first, first, second)]
    assert len(set(draws)) == 3
    assert first.torch_seed() != second.torch_seed()
    assert not first.test


def test_test_noise_is_reproducible_and_loud():
    with pytest.warns(UserWarning, match="NO privacy"):
        one, two = TestNoise(5), TestNoise(5)
    assert one.test
    assert np.array_equal(one.normal((3, 5), 2.0), two.normal((3, 5), 2.0))
    assert 0 <= one.torch_seed() < 2**63


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_scale_that_is_no_scale_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        SecureNoise().normal((2,), scale)


def test_release_has_the_stated_noise_and_lies_on_the_grid():
    sensitivity, sigma = 0.7, 1.3
    value = np.linspace(-50, 50, 100_000)
    released = gaussian_release(value, sensitivity, sigma, SecureNoise())
    grid = grid_of(sensitivity)
    assert np.array_equal(released / grid, np.rint(released / grid))
    inflated = sensitivity + grid * math.sqrt(value.size)
    assert stats.kstest((released - value) / (sigma * inflated), "norm").pvalue > 1e-5
    assert math.frexp(grid)[0] == 0.5  # a power of two: multiples of it are exact


class _NoNoise:
    test = True

    def normal(self, shape, scale):
        self.scale = scale
        return np.zeros(shape)


def test_rounding_moves_neighbours_apart_by_no_more_than_the_inflation():
    rng = np.random.default_rng(0)
    for _ in range(50):
        one = rng.normal(size=500)
        step = rng.normal(size=500)
        other = one + step / np.linalg.norm(step)
        noise = _NoNoise()
        released = [gaussian_release(value, 1.0, 1.0, noise) for value in (one, other)]
        assert np.linalg.norm(released[0] - released[1]) <= noise.scale


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_release_refuses_what_was_not_clipped(value):
    with pytest.raises(ValueError, match="finite"):
        gaussian_release(np.array([0.0, value]), 1.0, 1.0, SecureNoise())


@pytest.mark.parametrize(("sensitivity", "sigma"), [(0.0, 1.0), (1.0, 0.0), (math.inf, 1.0), (1.0, -1.0)])
def test_release_refuses_parameters_that_give_no_noise(sensitivity, sigma):
    with pytest.raises(ValueError, match="positive"):
        gaussian_release(np.zeros(2), sensitivity, sigma, SecureNoise())


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.integers(0, 2)), max_size=30), st.data())
@settings(max_examples=60, deadline=None)
def test_a_patient_moves_one_cell_of_the_histogram_by_one(patients, data):
    def counts(entries):
        scores = np.array([entry[0] for entry in entries], dtype=np.float64)
        labels = np.array([entry[1] for entry in entries], dtype=np.int64)
        return noisy_score_histogram(scores, labels, 8, 3, 1.0, Meter(_NoNoise(), ""))

    everyone = counts(patients)
    assert everyone.sum() == len(patients)
    if patients:
        gone = data.draw(st.integers(0, len(patients) - 1))
        change = everyone - counts(patients[:gone] + patients[gone + 1 :])
        assert np.linalg.norm(change) == 1.0


def test_histogram_has_noise_and_checks_its_input():
    scores, labels = np.full(1000, 0.5), np.zeros(1000, dtype=np.int64)
    released = noisy_score_histogram(scores, labels, 20, 2, 4.0, Meter(SecureNoise(), ""))
    assert released.dtype == np.float32
    assert 2.0 < released[1].std() < 7.0
    with pytest.raises(ValueError, match="one entry a patient"):
        noisy_score_histogram(scores[:5], labels, 20, 2, 4.0, Meter(SecureNoise(), ""))
    with pytest.raises(ValueError, match="classes"):
        noisy_score_histogram(scores, labels + 2, 20, 2, 4.0, Meter(SecureNoise(), ""))

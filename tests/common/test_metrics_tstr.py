"""Figures of a classifier against their definitions, intervals over patients, calibration, the linear model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from sfumato_common.metrics.calibration import brier_score, calibration_error
from sfumato_common.metrics.tstr import balanced_accuracy, fit_linear, macro_auc, patient_interval
from sfumato_common.metrics.utility import auc


def two(p):
    return np.column_stack([1.0 - np.asarray(p), p])


def test_macro_auc_of_two_classes_is_the_auc_and_of_three_the_mean_of_those_that_exist():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 200), rng.random(200)
    assert macro_auc(two(scores), labels) == auc(scores, labels)
    probabilities, three = rng.dirichlet(np.ones(3), 200), rng.integers(0, 3, 200)
    expected = np.mean([auc(probabilities[:, k], three == k) for k in range(3)])
    assert macro_auc(probabilities, three) == pytest.approx(expected)
    assert macro_auc(probabilities, labels) == pytest.approx(
        np.mean([auc(probabilities[:, k], labels == k) for k in (0, 1)])
    )
    assert macro_auc(probabilities, three) == pytest.approx(roc_auc_score(three, probabilities, multi_class="ovr"))
    assert np.isnan(macro_auc(two(scores), np.ones(200, dtype=int)))


def test_balanced_accuracy_ignores_how_common_a_class_is():
    labels = np.repeat([0, 1], [90, 10])
    assert balanced_accuracy(two(np.zeros(100)), labels) == 0.5
    assert balanced_accuracy(two(labels * 0.8 + 0.1), labels) == 1.0


def test_the_interval_covers_a_known_mean_and_draws_patients_not_images():
    rng = np.random.default_rng(1)
    # 60 patients with 8 images that are all alike: the error of the mean is 1/sqrt(60), not 1/sqrt(480)
    value, patient_index = np.repeat(rng.normal(size=60), 8), np.repeat(np.arange(60), 8)
    shuffled = rng.permutation(480)
    low, high = patient_interval(lambda rows: value[shuffled][rows].mean(), patient_index[shuffled], rng, draws=400)
    assert high - low == pytest.approx(2 * 1.96 * value.std() / np.sqrt(60), rel=0.2)
    assert low < value.mean() < high


def test_an_interval_of_a_figure_that_is_never_defined_is_not_a_number():
    low, high = patient_interval(lambda rows: float("nan"), np.arange(9), np.random.default_rng(0), draws=5)
    assert np.isnan(low) and np.isnan(high)


def test_calibration_error_of_honest_and_of_boastful_probabilities():
    rng = np.random.default_rng(2)
    p = rng.random(20_000)
    labels = (rng.random(20_000) < p).astype(int)
    assert calibration_error(two(p), labels) < 0.015
    # always 0.9 sure of class 1, right in half of the cases
    assert calibration_error(two(np.full(1000, 0.9)), np.arange(1000) % 2) == pytest.approx(0.4)
    # too shy in one bin and too bold in another do not make up for each other
    p, right = np.repeat([0.9, 0.6], 10), np.array([1] * 10 + [0, 1] * 5)
    assert calibration_error(two(p), right) == pytest.approx(0.1)


def test_brier_score_by_hand():
    assert brier_score(two([1.0, 0.0]), np.array([1, 0])) == 0.0
    assert brier_score(two([1.0]), np.array([0])) == 2.0
    assert brier_score(two([0.7]), np.array([1])) == pytest.approx(0.18)


def test_the_linear_model_reaches_the_best_auc_of_two_gaussians():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [4000, 1000])
    features = rng.normal(size=(5000, 10)) * np.linspace(0.01, 100, 10)
    features[:, 0] += 0.01 * labels  # one standard deviation, on the smallest scale
    model = fit_linear(features[::2], labels[::2], 2)
    assert auc(model.probabilities(features[1::2])[:, 1], labels[1::2]) == pytest.approx(norm.cdf(2**-0.5), abs=0.03)
    # classes weigh alike, so the rare one is found as often as the common one
    assert balanced_accuracy(model.probabilities(features[1::2]), labels[1::2]) == pytest.approx(
        norm.cdf(0.5), abs=0.04
    )


def test_the_linear_model_separates_three_classes_and_shrinks():
    rng = np.random.default_rng(4)
    labels = np.arange(300) % 3
    features = rng.normal(size=(300, 4)) + 4.0 * np.eye(4)[labels]
    model = fit_linear(features, labels, 3)
    probabilities = model.probabilities(features)
    assert np.allclose(probabilities.sum(axis=1), 1.0)
    assert macro_auc(probabilities, labels) > 0.99
    strict = fit_linear(features, labels, 3, penalty=10.0)
    assert np.abs(strict.weights[:-1]).sum() < 0.1 * np.abs(model.weights[:-1]).sum()

"""Figures of sets as an evaluation draws them: samples with replacement, balls by rows, effective numbers, patients."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_common.metrics.diversity import apart_distances, usual_distance, vendi_score
from sfumato_common.metrics.fidelity import drawn_kernel_distances, kernel_distance
from sfumato_common.metrics.judges import fit_judge
from sfumato_common.metrics.nearest import nearest_distances, patient_distances
from sfumato_common.metrics.prdc import balls, neighbourhood, neighbourhood_of
from sfumato_common.metrics.tstr import patient_draws
from sfumato_server.evaluate.rows import Estimate, jackknifed, row

RNG = np.random.default_rng


def test_a_kernel_distance_of_every_record_once_is_the_distance_and_drawing_twice_does_not_bias_it():
    first, second = RNG(0).normal(size=(80, 6)), RNG(1).normal(size=(70, 6))
    whole = next(drawn_kernel_distances(first, second, [(np.arange(80), np.arange(70))]))
    assert whole == pytest.approx(kernel_distance(first, second))
    rng = RNG(2)
    draws = [(rng.integers(0, 80, 80), rng.integers(0, 70, 70)) for _ in range(400)]
    found = np.array(list(drawn_kernel_distances(first, second, draws)))
    naive = np.array([kernel_distance(first[a], second[b]) for a, b in draws[:100]])
    assert abs(found.mean() - whole) < 3 * found.std() / 20 < abs(naive.mean() - whole)


def test_balls_of_all_rows_are_the_neighbourhood_and_of_some_rows_their_own_share():
    real, synthetic = RNG(0).normal(size=(50, 3)), RNG(1).normal(size=(60, 3))
    tables = balls(real, synthetic)
    assert neighbourhood_of(*tables) == neighbourhood(real, synthetic)
    some = neighbourhood_of(tables[0][:10], tables[1][:10])
    assert some.recall == tables[1][:10].any(axis=1).mean()


def test_the_effective_number_is_that_of_separate_clusters_and_one_of_one_record():
    centres = 1e3 * np.eye(7)
    assert vendi_score(np.repeat(centres, 5, axis=0), 1.0) == pytest.approx(7.0)
    assert vendi_score(np.ones((20, 3)), 1.0) == pytest.approx(1.0)
    assert usual_distance(np.array([[0.0], [3.0], [9.0]])) == 6.0 and usual_distance(np.ones((4, 2))) > 0.0


def test_a_patients_other_films_are_no_repetition():
    features, patients = np.array([[0.0], [0.1], [5.0], [5.2]]), np.array([0, 0, 1, 2])
    assert np.allclose(apart_distances(features, patients), [5.0, 4.9, 0.2, 0.2])
    assert np.isinf(apart_distances(features, np.zeros(4, np.int64))).all()


def test_distances_by_patient_are_the_nearest_of_each_ones_images():
    images = RNG(0).integers(0, 256, (12, 24, 24), dtype=np.uint8)
    queries, real, patients = images[:4], images[4:], np.array([2, 0, 1, 2, 0, 1, 1, 0])
    found = patient_distances(queries, real, patients)
    assert found.shape == (4, 3)
    for patient in range(3):
        assert np.allclose(found[:, patient], nearest_distances(queries, real[patients == patient]), atol=1e-3)


def test_whole_patients_are_drawn():
    patients = np.array([5, 7, 5, 9, 9, 9])
    for rows in patient_draws(patients, RNG(0), 20):
        owners, counts = np.unique(patients[rows], return_counts=True)
        sizes = {5: 2, 7: 1, 9: 3}
        assert all(count % sizes[owner] == 0 for owner, count in zip(owners.tolist(), counts.tolist(), strict=True))


def test_features_of_a_judge_are_what_its_last_layer_reads():
    images = RNG(0).integers(0, 256, (9, 16, 16), dtype=np.uint8)
    for name, width in (("cnn", 128), ("resnet18", 512)):
        judge = fit_judge(name, images, np.arange(9) % 3, 3, 0, steps=1)
        features = judge.features(images)
        assert features.shape == (9, width)
        layer = judge.network[-1]
        logits = features @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        assert np.allclose(shares / shares.sum(axis=1, keepdims=True), judge.probabilities(images), atol=1e-5)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = RNG(0).normal(size=400)
    groups = np.arange(400) % 20
    low, high = jackknifed(values.mean(), [values[groups != at].mean() for at in range(20)]).interval
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.35)
    assert (low + high) / 2 == pytest.approx(values.mean())


def test_what_is_not_a_number_is_none_in_a_line():
    line = row("tstr", "x", Estimate(0.5, np.array([np.nan, 0.4, 0.6])), Estimate(0.0, np.zeros(3)), "ratio")
    assert line.value == 0.5 and 0.4 <= line.low < line.high <= 0.6
    assert line.compared is None and line.comparison == "ratio"

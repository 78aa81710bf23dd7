"""Utility figures: AUC against its definition, the figure read off a noisy histogram, the small classifier."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sfumato_common.metrics.utility import (
    auc,
    auc_from_histogram,
    auc_interval,
    classifier_schema,
    score,
    train_classifier,
)
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan


def plan_of(channels: int = 1, labels: int = 2) -> Plan:
    value = {
        "study": "small",
        "image": {"size": 16, "channels": channels},
        "labels": ["normal", "opacity", "other"][:labels],
        "sites": {"alder": {"nominal_patients": 100}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [{"kind": "spectral", "bandwidth": 4, "clip_radius": 3.0, "noise_multiplier": 1.0}],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def test_auc_is_the_share_of_ordered_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 80) / 5.0, rng.integers(0, 2, 80)
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[positive == 1] for b in scores[positive == 0]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc(scores, np.ones(80, dtype=np.int64)))


def test_auc_is_that_of_scikit_learn():
    """Ours is exact in ranks and needs no scikit-learn where a coordinator has none."""
    rng = np.random.default_rng(3)
    for many in (2, 6, 10**6):  # nearly all tied, some, next to none
        scores, positive = rng.integers(0, many, 400) / many, np.r_[0, 1, rng.random(398) < 0.3]
        assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_histogram_auc_equals_the_auc_of_binned_scores():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    cells = np.clip((rng.normal(0.4 + 0.2 * labels, 0.2) * 10).astype(int), 0, 9)
    histogram = np.stack([np.bincount(cells[labels == k], minlength=10) for k in (0, 1)])
    assert auc_from_histogram(histogram) == pytest.approx(auc(cells.astype(float), labels))
    three = np.stack([histogram[0], histogram[1] // 2, histogram[1] - histogram[1] // 2])
    assert auc_from_histogram(three) == pytest.approx(auc_from_histogram(histogram))


def test_negative_counts_and_empty_sides_are_handled():
    assert auc_from_histogram(np.array([[10.0, -3.0], [-2.0, 10.0]])) == 1.0
    assert np.isnan(auc_from_histogram(np.array([[-1.0, -3.0], [2.0, 10.0]])))
    assert all(np.isnan(auc_interval(np.array([[-1.0, -3.0], [2.0, 10.0]]), 1.0, 20, np.random.default_rng(0))))


def test_the_interval_covers_the_noiseless_figure():
    rng = np.random.default_rng(1)
    shape = np.stack([np.linspace(40, 2, 10), np.linspace(2, 40, 10)])
    true, covered = auc_from_histogram(shape), 0
    for _ in range(60):
        low, high = auc_interval(shape + rng.normal(0, 3.0, shape.shape), 3.0, 200, rng)
        assert low < high
        covered += low <= true <= high
    assert covered >= 51


@pytest.mark.parametrize(("channels", "labels"), [(1, 2), (3, 3)])
def test_the_classifier_learns_fits_its_schema_and_repeats(channels, labels):
    plan = plan_of(channels, labels)
    rng = np.random.default_rng(0)
    y = np.arange(300) % labels
    shape = (300, 16, 16) if channels == 1 else (300, 16, 16, 3)
    images = rng.integers(0, 128, shape)
    images[y > 0, 4:8, 4:8] += 100
    arrays = train_classifier(plan, images.astype(np.uint8), y, seed=0, steps=60)
    schema = classifier_schema(plan)
    assert arrays.keys() == schema.keys()
    assert all(schema[name].matches(value) for name, value in arrays.items())
    found = score(plan, arrays, images.astype(np.uint8))
    assert found.dtype == np.float64
    assert 0.0 <= found.min() <= found.max() <= 1.0
    assert auc(found, y > 0) > 0.95
    again = train_classifier(plan, images.astype(np.uint8), y, seed=0, steps=60)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert score(plan, arrays, images[:0].astype(np.uint8)).shape == (0,)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 33])
def test_a_score_does_not_depend_on_who_else_is_scored(count):
    # torch gives an image alone another last bit than in a batch; crafted weights make that bit decide a bin
    plan, rng = plan_of(), np.random.default_rng(4)
    images = rng.integers(0, 256, (33, 16, 16)).astype(np.uint8)
    crafted = {
        name: (0.3 * rng.normal(size=spec.shape)).astype(spec.dtype) for name, spec in classifier_schema(plan).items()
    }
    together = score(plan, crafted, images)
    assert np.array_equal(score(plan, crafted, images[:count]), together[:count])
    assert np.array_equal(score(plan, crafted, images[-count:]), together[-count:])

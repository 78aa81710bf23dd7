"""Linkage by plain correlation: copies are found, strangers are found as often as a guess."""

import numpy as np
import pytest

from sfumato_client.audit.attacks.linkage import correlation_linkage


def gallery_of(patients=40, size=32, seed=0):
    """One or two images a patient, those of one alike."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(patients), 1 + np.arange(patients) % 2)
    people = rng.normal(size=(patients, size, size))[index] + 0.2 * rng.normal(size=(len(index), size, size))
    return np.clip(128 + 40 * people, 0, 255).astype(np.uint8), index


def test_a_noisy_darker_copy_is_linked_to_its_patient_and_so_is_a_mean_to_one_of_its_own():
    gallery, index = gallery_of()
    first = np.searchsorted(index, np.arange(30))
    rng = np.random.default_rng(1)
    noisy = np.clip(0.5 * gallery[first] + rng.normal(0, 20, gallery[first].shape), 0, 255).astype(np.uint8)
    found = correlation_linkage(noisy, gallery, index, [np.array([patient]) for patient in range(30)])
    assert (found.images, found.share, found.chance) == (30, 1.0, 1 / 40)
    assert found.interval[0] > 0.85
    groups = [np.arange(5 * number, 5 * number + 5) for number in range(6)]
    means = np.stack([gallery[first[group]].mean(axis=0) for group in groups]).astype(np.uint8)
    assert correlation_linkage(means, gallery, index, groups).share == 1.0
    assert correlation_linkage(means, gallery, index, groups).chance == pytest.approx(5 / 40)


def test_strangers_are_linked_as_often_as_a_guess_is_right():
    gallery, index = gallery_of()
    strangers, owners = gallery_of(patients=600, seed=9)
    behind = [np.array([owner % 40]) for owner in owners]
    found = correlation_linkage(strangers, gallery, index, behind)
    assert found.interval[0] <= 1 / 40 + 0.01 and found.share < 0.06


def test_places_that_nobody_fills_are_left_out_and_what_shows_nothing_is_a_tie():
    gallery, index = gallery_of()
    nobody, flat = np.zeros(0, dtype=np.int64), np.full((1, 32, 32), 7, dtype=np.uint8)
    found = correlation_linkage(np.concatenate([gallery[:1], flat]), gallery, index, [np.array([0]), nobody])
    assert (found.images, found.share) == (1, 1.0)
    assert correlation_linkage(flat, gallery, index, [np.array([1])]).share == pytest.approx(2 / len(index))
    with pytest.raises(ValueError, match="nobody"):
        correlation_linkage(flat, gallery, index, [nobody])

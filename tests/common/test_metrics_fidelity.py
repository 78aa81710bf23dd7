"""Distances and neighbourhoods on Gaussians whose answers are known, and the feature spaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import softmax

from sfumato_common.metrics.features import random_features, random_grid
from sfumato_common.metrics.fidelity import frechet_distance, kernel_distance
from sfumato_common.metrics.network import Network, augment, fit_network
from sfumato_common.metrics.prdc import neighbourhood


def normal(seed, n=2000, d=6, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(seed).normal(size=(n, d))


def test_frechet_distance_of_shifted_and_scaled_gaussians_is_the_closed_form():
    # N(0, 1) against N(m, s^2) in each of d directions: d (m^2 + (1 - s)^2)
    found = frechet_distance(normal(0, 40_000), normal(1, 40_000, mean=0.5, scale=1.5))
    assert found == pytest.approx(6 * (0.25 + 0.25), rel=0.03)


def test_frechet_distance_sees_correlation_and_agrees_with_the_matrix_root_of_the_product():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(400, 5))
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    gap = first.mean(axis=0) - second.mean(axis=0)
    expected = gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_is_zero_of_itself_also_with_fewer_records_than_dimensions():
    few = normal(3, n=20, d=50)
    assert frechet_distance(few, few[::-1]) == pytest.approx(0.0, abs=1e-5)


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    null = [kernel_distance(normal(s, 60), normal(100 + s, 60)) for s in range(60)]
    assert abs(np.mean(null)) < 3 * np.std(null) / np.sqrt(len(null))
    assert min(null) < 0 < max(null)
    assert kernel_distance(normal(0, 200), normal(1, 200, mean=0.7)) > max(null)


def test_kernel_distance_of_a_known_pair():
    # two records each in one dimension: k(x, y) = (xy + 1)^3
    assert kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_one_distribution_twice_has_full_precision_recall_density_and_coverage():
    found = neighbourhood(normal(0, 1500, 3), normal(1, 1500, 3))
    assert min(found.precision, found.recall, found.coverage) > 0.9
    assert found.density == pytest.approx(1.0, abs=0.1)


def two_modes(seed, n=1000, share=0.5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) + 20.0 * (rng.random((n, 1)) < share)


def test_dropping_a_mode_costs_recall_and_coverage_and_no_precision():
    found = neighbourhood(two_modes(0), two_modes(1, share=0.0))
    assert found.precision > 0.95
    assert found.recall == pytest.approx(0.5, abs=0.06)
    assert found.coverage == pytest.approx(0.5, abs=0.06)


def test_inventing_a_mode_costs_precision_and_no_recall():
    found = neighbourhood(two_modes(0, share=0.0), two_modes(1))
    assert found.precision == pytest.approx(0.5, abs=0.06)
    assert found.recall > 0.9


def test_copies_of_few_records_cover_few():
    real = normal(0, 1000, 3)
    copies = real[np.random.default_rng(1).integers(0, 20, 1000)] + 1e-6 * normal(2, 1000, 3)
    found = neighbourhood(real, copies)
    assert found.precision == 1.0
    assert found.coverage < 0.2
    assert found.recall < 0.05


def test_one_outlier_does_not_buy_recall_of_everything_from_the_real_side():
    # coverage counts real balls, so a single far synthetic record with a huge ball cannot raise it
    real, outlier = normal(0, 300, 3), np.vstack([normal(1, 300, 3, scale=0.01, mean=50.0), [[1000.0] * 3]])
    assert neighbourhood(real, outlier).coverage == 0.0


def test_a_set_too_small_is_refused():
    with pytest.raises(ValueError, match="more than 5 records"):
        neighbourhood(normal(0, 5), normal(1, 50))
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(normal(0, 1), normal(1, 50))
    with pytest.raises(ValueError, match="at least two"):
        kernel_distance(normal(0, 50), normal(1, 1))


@pytest.mark.parametrize("shape", [(700, 28, 28), (300, 32, 32, 3)])
def test_random_features_are_the_same_everywhere_and_tell_sets_apart(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    smooth = (images // 2 + np.roll(images, 1, axis=1) // 2).astype(np.uint8)
    features = random_features(images)
    assert features.shape == (len(images), 144) and random_grid(images).shape == (len(images), 512)
    np.testing.assert_allclose(features[:50], random_features(images[:50]), atol=1e-5)
    half = len(images) // 2
    same = frechet_distance(features[:half], features[half:])
    assert frechet_distance(features[:half], random_features(smooth[half:])) > 5 * same


def lit(seed, n=240):
    """Noise, with a bright band above or below in classes 1 and 2."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3
    images = rng.integers(0, 100, (n, 16, 16))
    images[labels == 1, 2:6] += 80
    images[labels == 2, 10:14] += 80
    return images.astype(np.uint8), labels


def test_the_network_learns_three_classes_repeats_and_shows_its_features():
    images, labels = lit(0)
    trained = fit_network(images, labels, 3, seed=0, steps=60)
    holdout_images, expected = lit(1)
    probabilities = trained.probabilities(holdout_images)
    assert np.allclose(probabilities.sum(axis=1), 1.0)
    assert (probabilities.argmax(axis=1) == expected).mean() > 0.95
    assert np.array_equal(probabilities, fit_network(images, labels, 3, seed=0, steps=60).probabilities(holdout_images))
    head = trained.network.head
    features = trained.features(holdout_images)[:, -head.in_features :]
    logits = features @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    np.testing.assert_allclose(softmax(logits, axis=1), probabilities, atol=1e-5)


@pytest.mark.parametrize(("size", "channels", "levels"), [(16, 1, 4), (28, 1, 4), (64, 3, 4), (256, 1, 6)])
def test_the_network_sees_an_image_of_any_size_whole(size, channels, levels):
    network = Network(size, channels, 2)
    assert len(network.levels) == levels
    assert network(torch.zeros(2, channels, size, size)).shape == (2, 2)


def test_varied_images_move_mirror_and_change_exposure_within_bounds():
    x = torch.zeros(400, 1, 28, 28)
    x[:, :, 14, 9] = 1.0
    seen = augment(x, torch.Generator().manual_seed(0))
    assert seen.shape == x.shape
    assert float((seen - x).abs().amin()) < 1e-3
    peaks = seen.flatten(2).argmax(2) % 28
    assert len(set(peaks.flatten().tolist())) == 2  # one move a batch, and its mirror image
    assert int((peaks - 9).abs().minimum((peaks - 18).abs()).max()) <= 2
    assert float(seen.max()) <= 1.3001
    assert float(seen.amax(dim=(1, 2, 3)).std()) > 0.05

"""The figure of shape: near zero for one distribution, large where detail became noise of the same power."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_common.metrics.structure import energy_coefficient, structure_distance, structure_features
from sfumato_common.phantom import arrays


@pytest.fixture(scope="module")
def films():
    images = arrays(3, 240, 64, "alder", "aurora")[0]
    return images[:120], images[-120:]  # of different patients


def noise_instead_of_detail(images: np.ndarray, cut: float, seed: int = 0) -> np.ndarray:
    """Every image's Fourier amplitudes, all of them; above `cut` cycles a side with the phases of white noise."""
    size = images.shape[1]
    cycles = np.fft.fftfreq(size) * size
    high = np.hypot(cycles[:, None], cycles[None]) >= cut
    spectrum = np.fft.fft2(images.astype(np.float64))
    phases = np.fft.fft2(np.random.default_rng(seed).normal(size=images.shape))
    mixed = np.where(high, np.abs(spectrum) * phases / np.abs(phases), spectrum)
    return np.clip(np.rint(np.fft.ifft2(mixed).real), 0, 255).astype(np.uint8)


def test_ribs_and_noise_of_the_same_power_are_told_apart_and_real_from_real_is_not(films):
    first, second = films
    assert abs(structure_distance(first, second)) < 0.01
    assert structure_distance(noise_instead_of_detail(second, 7.0), first) > 0.1


def test_exposure_moves_nothing(films):
    first, second = films
    darker = np.clip(np.rint(second * 0.7 + 20.0), 0, 255).astype(np.uint8)
    assert abs(structure_distance(darker, first) - structure_distance(second, first)) < 0.01


def test_a_grating_is_coherent_in_its_direction_and_flat_images_have_none():
    across = np.arange(64) * 2.0 * np.pi / 8.0
    upright = np.tile(np.rint(127.5 + 60.0 * np.sin(across)).astype(np.uint8), (64, 1))
    lying, flat = upright.T.copy(), np.full((64, 64), 90, np.uint8)
    found = structure_features(np.stack([upright, lying, flat])).reshape(3, 2, 3, 16)
    assert (found[0, :, :2] > 0.95).all() and np.allclose(found[0, :, 2], 0.0, atol=0.05)
    assert (found[1, :, 1] < -0.95).all()
    assert np.allclose(found[2], 0.0)


def test_colour_channels_are_added():
    grey = arrays(3, 4, 32, "alder", "aurora")[0]
    assert np.allclose(structure_features(np.stack([grey] * 3, axis=-1)), structure_features(grey), atol=0.05)


def test_the_energy_coefficient_is_its_definition_unbiased_and_at_most_one():
    rng = np.random.default_rng(0)
    drawn = [energy_coefficient(rng.normal(size=(20, 5)), rng.normal(size=(30, 5))) for _ in range(200)]
    assert abs(np.mean(drawn)) < 3.0 * np.std(drawn) / np.sqrt(200)
    assert min(drawn) < 0.0 < max(drawn)
    assert energy_coefficient(np.zeros((4, 2)), np.ones((5, 2))) == 1.0
    assert energy_coefficient(np.zeros((4, 2)), np.zeros((5, 2))) == 0.0
    with pytest.raises(ValueError, match="at least two"):
        structure_distance(np.zeros((1, 32, 32), np.uint8), np.zeros((5, 32, 32), np.uint8))

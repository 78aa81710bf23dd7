"""The law of a sum of rounded Gaussians: the proof of `mechanisms/summed.py`, on grids so coarse that it shows."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease, SummedGaussian, normal_form, same_mechanisms, seen_with
from sfumato_common.errors import EgressRefused
from sfumato_common.mechanisms.grid import grid_of
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.summed import gaussian_part, law_distance, sum_of_cells

COARSE = [0.7, 1.0, 1.4, 2.0, 3.0]


def rounded(deviation, within):
    """P(round(N(0, s^2)) = j) for j from -within to within."""
    edges = np.arange(-within, within + 2) - 0.5
    upper, lower = ndtr(edges[1:] / deviation), ndtr(edges[:-1] / deviation)
    # from the other side where both are near 1: differences of tails keep their digits
    return np.where(edges[:-1] > 0, ndtr(-edges[:-1] / deviation) - ndtr(-edges[1:] / deviation), upper - lower)


def added(deviation, sites, within):
    """The law of the sum of so many rounded draws, by plain convolution."""
    one = found = rounded(deviation, within)
    for _ in range(sites - 1):
        found = np.convolve(found, one)
    middle = len(found) // 2
    return found[middle - within : middle + within + 1]


def post_processed(deviation, sites, within, fine=200):
    """The law of round(N(0, m s^2) + U_2 + ... + U_m): a Gaussian's cells, smeared by uniforms on a fine lattice."""
    # midpoints of uniforms, added up sites - 1 times
    uniform, spread = np.full(fine, 1.0 / fine), np.ones(1)
    for _ in range(sites - 1):
        spread = np.convolve(spread, uniform)
    offsets = (np.arange(len(spread)) - (len(spread) - 1) / 2.0) / fine
    whole, total = math.sqrt(sites) * deviation, np.arange(-within, within + 1)
    found = np.zeros(len(total))
    for offset, weight in zip(offsets, spread, strict=True):
        found += weight * (ndtr((total + 0.5 - offset) / whole) - ndtr((total - 0.5 - offset) / whole))
    return found


@pytest.mark.parametrize("deviation", COARSE)
@pytest.mark.parametrize("sites", [1, 2, 3, 5])
def test_the_sum_is_as_near_to_a_post_processed_gaussian_as_the_bound_says(deviation, sites):
    within = 60
    apart = np.abs(added(deviation, sites, within) - post_processed(deviation, sites, within)).sum() / 2.0
    # the fine lattice of the oracle is off by less than 1e-5
    assert apart <= law_distance(sites, deviation) + 1e-5


def test_on_a_coarse_grid_the_two_laws_are_really_apart_and_on_ours_the_bound_is_all_tails():
    apart = np.abs(added(0.5, 3, 40) - post_processed(0.5, 3, 40)).sum() / 2.0
    assert apart > 1e-3  # the argument is needed: on such a grid the sum is no Gaussian's post-processing
    assert law_distance(2, 4.0) < 2e-23
    assert law_distance(256, 64.0) < 2e-23


@pytest.mark.parametrize("sites", [2, 3])
def test_what_the_sum_tells_of_one_patient_is_what_a_gaussian_of_the_whole_noise_tells(sites):
    """Hockey-stick divergence of the sum's own law, shifted by a sensitivity of whole cells, at several epsilons."""
    cells, within = 4, 200
    deviation = 2.0 * cells / math.sqrt(sites)  # together: a noise multiplier of 2
    law = added(deviation, sites, within)
    shifted = np.concatenate([np.zeros(cells), law[:-cells]])
    mu = 0.5
    for eps in (0.1, 0.5, 1.0):
        delta = np.maximum(shifted - math.exp(eps) * law, 0.0).sum()
        exact = ndtr(mu / 2 - eps / mu) - math.exp(eps) * ndtr(-mu / 2 - eps / mu)
        assert delta <= exact + (1.0 + math.exp(eps)) * law_distance(sites, deviation) + 1e-9


def test_parts_add_up_to_the_whole_noise_and_lie_on_the_grid():
    sites, among, sensitivity = 5, 4, 0.37
    value = np.linspace(-2.0, 2.0, 20_000)
    parts = [gaussian_part(value, sensitivity, 3.0, among, SecureNoise()) for _ in range(sites)]
    noise = sum_of_cells(np.sum(parts, axis=0), sensitivity) - sites * value
    wanted = 3.0 * sensitivity * math.sqrt(sites / among)
    assert noise.std() == pytest.approx(wanted, rel=0.02)
    assert all(part.dtype == np.int64 for part in parts)
    assert np.abs(sum_of_cells(parts[0], sensitivity) - value).max() < 9.5 * wanted
    assert grid_of(sensitivity) == 2.0**-22


@pytest.mark.parametrize("wrong", [{"among": 0}, {"noise_multiplier": 1e-6}, {"sensitivity": -1.0}, {"among": 10_000}])
def test_a_part_that_the_law_says_nothing_of_is_refused(wrong):
    terms = {"sensitivity": 1.0, "noise_multiplier": 1.0, "among": 2, **wrong}
    with pytest.raises(ValueError):
        gaussian_part(np.zeros(4), noise=SecureNoise(), **terms)


def test_a_part_of_a_sum_pays_for_no_whole_release_and_the_other_way_round():
    part, whole = SummedGaussian(2.0, 3), GaussianRelease(2.0)
    assert not same_mechanisms([whole], [part])
    assert not same_mechanisms([part], [whole])
    assert not same_mechanisms([part], [SummedGaussian(2.0, 2)])
    assert normal_form([part, SummedGaussian(2.0, 3)]) == (SummedGaussian(2.0 / math.sqrt(2.0), 3),)
    assert len(normal_form([part, SummedGaussian(2.0, 2), whole])) == 3


def test_a_part_is_worth_more_the_more_noises_somebody_does_not_know():
    part = SummedGaussian(2.0, 4)
    figures = [epsilon([seen_with(part, noises)], 1e-5) for noises in (1, 4, 5)]
    assert figures == sorted(figures, reverse=True)
    assert figures[1] == epsilon([part], 1e-5) == epsilon([GaussianRelease(2.0)], 1e-5)
    assert seen_with(part, 1) == GaussianRelease(1.0)


def test_the_recorder_counts_a_part_as_one_and_gives_it_under_its_mask_alone():
    recorder = NoiseRecorder(SecureNoise(), "charge")
    mask = np.array([2**64 - 1, 5], dtype=np.uint64)
    masked = recorder.summed_gaussian(np.zeros(2), 1.0, 2.0, 3, mask)
    assert masked.dtype == np.uint64
    assert np.abs((masked - mask).view(np.int64)).max() < 10 * 2.0 * 2**20
    assert recorder.executed == (SummedGaussian(2.0, 3),)
    with pytest.raises(ValueError):
        recorder.summed_gaussian(np.zeros(2), 1.0, 2.0, 3, mask[:1])
    recorder.seal_result({})
    with pytest.raises(EgressRefused):
        recorder.summed_gaussian(np.zeros(2), 1.0, 2.0, 3, mask)

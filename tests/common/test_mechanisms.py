"""The Gaussian release: stated noise, exact grid, no trace in low bits or signs, bad input refused; and an audit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.mechanisms.grid import gaussian_release, grid_of
from sfumato_common.mechanisms.noise import SecureNoise, TestNoise

ALPHA, DELTA = 1e-6, 1e-5


class FixedNoise:
    """Draws one value everywhere, and remembers the scale it was asked for."""

    test = True

    def __init__(self, value=0.0):
        self._value = value

    def normal(self, shape, scale):
        self.scale = scale
        return np.full(shape, self._value)


@pytest.mark.parametrize(("sensitivity", "sigma"), [(0.7, 1.3), (1.0, 0.4), (3e-5, 8.0), (1e4, 2.0)])
def test_release_has_the_stated_noise_and_lies_on_the_grid(sensitivity, sigma):
    value = np.linspace(-50, 50, 100_001) * sensitivity
    released = gaussian_release(value, sensitivity, sigma, TestNoise(31))
    grid = grid_of(sensitivity)
    assert math.frexp(grid)[0] == 0.5  # a power of two: multiples of it are exact
    assert sensitivity * 2.0**-21 < grid <= sensitivity * 2.0**-20
    assert np.array_equal(released / grid, np.rint(released / grid))
    noise = (released - value) / (sigma * (sensitivity + grid * math.sqrt(value.size)))
    assert stats.kstest(noise, "norm").pvalue > ALPHA
    squares = float((noise**2).sum())
    assert ALPHA < stats.chi2.cdf(squares, value.size) < 1 - ALPHA


def test_the_inflation_is_part_of_the_noise():
    noise = FixedNoise()
    gaussian_release(np.zeros((1 << 10, 1 << 10)), 1.0, 2.0, noise)
    assert noise.scale == 2.0 * (1.0 + 2.0**-20 * 2.0**10)


def test_rounding_moves_neighbours_apart_by_no_more_than_the_inflation():
    rng = np.random.default_rng(0)
    steps = [rng.normal(size=500) for _ in range(50)] + [np.ones(500)]
    for step in steps:
        one = rng.normal(size=500)
        if step is steps[-1]:
            one = (rng.integers(0, 99, 500) + 0.5) * grid_of(1.0) - 1e-12  # just below the middle between two points
        other = one + step / np.linalg.norm(step)
        noise = FixedNoise()
        released = [gaussian_release(value, 1.0, 1.0, noise) for value in (one, other)]
        assert np.linalg.norm(released[0] - released[1]) <= noise.scale


def test_values_that_round_alike_come_out_alike_to_the_last_bit():
    tiny = 0.3 * grid_of(1.0)
    for drawn in (0.0, -0.0, -tiny, tiny, 0.7):
        outputs = {
            gaussian_release(np.array([value]), 1.0, 1.0, FixedNoise(drawn)).tobytes()
            for value in (0.0, -0.0, tiny, -tiny, -5e-324)
        }
        # -0.0 only for a negative sum under noise of zero would tell the two apart for certain
        assert len(outputs) == 1


def test_float32_sums_and_every_shape_are_taken_and_left_as_they_are():
    for shape in ((), (0,), (5,), (2, 3, 4)):
        value = np.full(shape, 0.25, dtype=np.float32)
        released = gaussian_release(value, 1.0, 1.0, TestNoise(1))
        assert released.shape == shape and released.dtype == np.float64
        assert (value == 0.25).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_release_refuses_what_was_not_clipped(value, place):
    values = np.array([-1.0, 0.0, 1.0])
    values[place] = value
    with pytest.raises(ValueError, match="finite"):
        gaussian_release(values, 1.0, 1.0, SecureNoise())


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_invalid([0.0, math.nan]),  # its own isfinite().all() says yes
        np.ones(3).view(np.recarray),
        np.ones(3, dtype=np.int64),
        np.ones(3, dtype=np.complex128),
        np.ones(3, dtype=np.longdouble),
        np.ones(3, dtype=object),
        np.ones(3, dtype=">f8"),
        [1.0, 2.0],
        1.0,
    ],
)
def test_release_refuses_what_is_not_a_plain_float_array(value):
    with pytest.raises(ValueError, match="plain"):
        gaussian_release(value, 1.0, 1.0, SecureNoise())


@pytest.mark.parametrize(
    ("sensitivity", "sigma"),
    [(0.0, 1.0), (1.0, 0.0), (math.inf, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.nan), (1e200, 1e200)],
)
def test_release_refuses_parameters_that_give_no_noise(sensitivity, sigma):
    with pytest.raises(ValueError, match="positive"):
        gaussian_release(np.zeros(2), sensitivity, sigma, SecureNoise())


@pytest.mark.parametrize(
    ("value", "sensitivity", "sigma"), [(2.0**32, 1.0, 1.0), (-(2.0**32), 1.0, 1.0), (0, 1.0, 1e9)]
)
def test_release_refuses_what_the_grid_cannot_hold_exactly(value, sensitivity, sigma):
    with pytest.raises(ValueError, match="too large for the grid"):
        gaussian_release(np.array([1.0, value]), sensitivity, sigma, SecureNoise())
    gaussian_release(np.array([1.0, value / 2]), sensitivity, sigma / 10, SecureNoise())


@pytest.mark.parametrize("sensitivity", [1e-310, 1e-305, 1e300])
def test_release_refuses_a_sensitivity_at_the_ends_of_float64(sensitivity):
    with pytest.raises(ValueError, match="rescale"):
        gaussian_release(np.zeros(2), sensitivity, 1.0, SecureNoise())


def test_sums_at_the_edge_of_the_grid_are_still_exact():
    grid = grid_of(1.0)
    value = np.array([(2**52 - 1) * grid])
    released = gaussian_release(value, 1.0, 1.0, FixedNoise(3 * grid))
    assert int(released[0] / grid) == 2**52 + 2


def test_one_draw_for_all_coordinates_is_refused():
    class Lazy(FixedNoise):
        def normal(self, shape, scale):
            return np.zeros(1)

    with pytest.raises(ValueError, match="each coordinate"):
        gaussian_release(np.zeros(3), 1.0, 1.0, Lazy())


def audited_epsilon(without, with_patient):
    """A lower bound of epsilon at DELTA that holds with odds 1 - 2 ALPHA (Jagielski et al. 2020): the best threshold on
    one half of the releases, Clopper-Pearson bounds of its two error rates on the other half."""
    choose, judge = slice(0, None, 2), slice(1, None, 2)

    def bound(threshold, part):
        above, trials = (with_patient[part] > threshold).sum(), len(with_patient[part])
        false, others = (without[part] > threshold).sum(), len(without[part])
        least = stats.beta.ppf(ALPHA, above, trials - above + 1) if above else 0.0
        most = stats.beta.ppf(1 - ALPHA, false + 1, others - false) if false < others else 1.0
        return math.log(max(least - DELTA, 1e-300) / most)

    best = max(np.linspace(-2, 8, 101), key=lambda threshold: bound(threshold, choose))
    return bound(best, judge)


@pytest.mark.parametrize("sigma", [0.8, 1.0, 2.0])
def test_an_attacker_with_a_million_releases_stays_below_the_claimed_epsilon(sigma):
    """Each coordinate is a release of its own: the patient's whole contribution of 1 in each."""
    trials, noise = 1_000_000, TestNoise(41)
    without = gaussian_release(np.zeros(trials), 1.0, sigma, noise)
    claimed = epsilon([GaussianRelease(sigma)], DELTA)
    found = audited_epsilon(without, gaussian_release(np.ones(trials), 1.0, sigma, noise))
    assert 0.0 < found < claimed

    halved = [gaussian_release(np.full(trials, x), 1.0, sigma / 2, noise) for x in (0.0, 1.0)]
    assert audited_epsilon(*halved) > claimed


def test_an_attacker_who_knows_the_direction_of_a_large_contribution_stays_below_it_too():
    size, trials, sigma, noise = 256, 4_000, 1.0, TestNoise(43)
    contribution = np.random.default_rng(1).normal(size=size)
    contribution /= np.linalg.norm(contribution)
    claimed = epsilon([GaussianRelease(sigma)], DELTA)

    def scores(value, sigma):
        return np.array([gaussian_release(value, 1.0, sigma, noise) @ contribution for _ in range(trials)])

    assert audited_epsilon(scores(np.zeros(size), sigma), scores(contribution, sigma)) < claimed
    weak = sigma / 4  # few releases: only a grosser fault shows
    assert audited_epsilon(scores(np.zeros(size), weak), scores(contribution, weak)) > claimed

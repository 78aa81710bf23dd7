"""Laplace noise against theory, and its release: stated scale, exact grid, no trace in low bits, bad input refused.

Seeds were fixed beforehand; each bound is passed with odds of 1e-6 or less against a right generator."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sfumato_common.mechanisms.grid import grid_of, laplace_release
from sfumato_common.mechanisms.noise import SecureNoise, TestNoise

ALPHA = 1e-6
COUNT = 1_000_000
LARGEST_Z = stats.norm.isf(ALPHA / 2)


@pytest.fixture(scope="module")
def drawn():
    return TestNoise(20260202).laplace((COUNT,), 1.0)


class Words(TestNoise):
    """The generator fed with words of our choice."""

    def __init__(self, *words):
        super().__init__(0)
        self._words = np.array(words, dtype=np.uint64)

    def words(self, count):
        return np.resize(self._words, count)


class FixedNoise:
    """Draws one value everywhere, and remembers the scale it was asked for."""

    test = True

    def __init__(self, value=0.0):
        self._value = value

    def laplace(self, shape, scale):
        self.scale = scale
        return np.full(shape, self._value)


def test_draws_pass_kolmogorov_and_smirnov(drawn):
    assert stats.kstest(drawn, "laplace").pvalue > ALPHA
    assert stats.kstest(TestNoise(3).laplace((COUNT,), 250.0) / 250.0, "laplace").pvalue > ALPHA
    assert stats.kstest(SecureNoise().laplace((300_000,), 2.0) / 2.0, "laplace").pvalue > 1e-12


def test_bins_of_equal_probability_are_equally_full(drawn):
    counts = np.bincount((stats.laplace.cdf(drawn) * 1024).astype(int), minlength=1024)
    assert stats.chisquare(counts).pvalue > ALPHA


def test_signs_balance_and_know_nothing_of_sizes(drawn):
    positive, sizes = drawn > 0, np.abs(drawn)
    assert abs(positive.sum() - COUNT / 2) / math.sqrt(COUNT / 4) < LARGEST_Z
    assert stats.ks_2samp(sizes[positive], sizes[~positive]).pvalue > ALPHA
    for lag in (1, 2, 64, COUNT // 2):
        for values in (drawn, sizes, np.sign(drawn)):
            assert abs(float(np.corrcoef(values[:-lag], values[lag:])[0, 1])) * math.sqrt(COUNT - lag) < LARGEST_Z


def test_tails_hold_as_many_draws_as_they_should():
    noise, blocks, bounds = TestNoise(7), 10, np.array([3.0, 6.0, 9.0, 12.0])
    counts = np.zeros((len(bounds), 2))
    for _ in range(blocks):
        block = noise.laplace((COUNT,), 1.0)
        counts += [((block > bound).sum(), (block < -bound).sum()) for bound in bounds]
    expected = COUNT * blocks * stats.laplace.sf(bounds)[:, None]  # 31 beyond 12 scales on each side
    assert (stats.poisson.cdf(counts, expected) > ALPHA).all()
    assert (stats.poisson.sf(counts - 1, expected) > ALPHA).all()


def test_the_same_seed_gives_the_same_draws_in_every_shape():
    flat = TestNoise(5).laplace((15,), 2.0)
    assert np.array_equal(TestNoise(5).laplace((3, 5), 2.0), flat.reshape(3, 5))
    assert not np.isin(TestNoise(6).laplace((15,), 2.0), flat).any()
    for shape in ((), (0,), (1,), (7, 11), (32_769,)):
        values = TestNoise(13).laplace(shape, 1.0)
        assert values.shape == shape and values.dtype == np.float64
        assert len(np.unique(values)) == values.size
        assert (values != 0.0).all() and (np.abs(values) < 44.5).all()
    assert (TestNoise(1).laplace((4,), 0.0) == 0.0).all()


@pytest.mark.parametrize("word", [0, 1, 2, 2**11 - 1, 2**12, 2**63 - 1, 2**63, 2**64 - 2**11, 2**64 - 2, 2**64 - 1])
def test_no_word_of_the_stream_gives_something_not_finite(word):
    assert np.isfinite(Words(word).laplace((1,), 1.0)).all()


def test_the_last_bit_is_the_sign_and_the_tail_is_cut_where_the_documentation_says():
    least, negative = Words(1, 0).laplace((2,), 1.0)
    assert {abs(least), abs(negative)} == {64 * math.log(2.0)}
    assert least == -negative


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="long double is no wider than double here")
def test_rounding_puts_a_cell_off_by_no_more_than_the_documentation_says():
    wide = np.longdouble
    words = TestNoise(19).words(200_000)
    exact = -np.log(((words >> 1).astype(wide) + wide(0.5)) * wide(2) ** -63)
    moved = np.abs(exact - np.abs(TestNoise(19).laplace((200_000,), 1.0)))
    # a cell is at least 2^-21 epsilon scales wide, and both its ends may move
    assert (2 * moved / 2.0**-21).max() < 1e-8
    assert (2 * moved / 2.0**-21).mean() < 1e-9


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_scale_that_is_no_scale_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        SecureNoise().laplace((2,), scale)


@pytest.mark.parametrize(("sensitivity", "epsilon"), [(0.7, 1.3), (1.0, 40.0), (3e-5, 0.1), (1e4, 2.0)])
def test_a_release_has_the_stated_noise_and_lies_on_the_grid(sensitivity, epsilon):
    value = np.linspace(-50, 50, 100_000).reshape(1_000, 100) * sensitivity
    released = laplace_release(value, sensitivity, epsilon, TestNoise(31))
    grid = grid_of(sensitivity)
    assert np.array_equal(released / grid, np.rint(released / grid))
    noise = (released - value) / ((sensitivity + 100 * grid) / epsilon)
    assert stats.kstest(noise.ravel(), "laplace").pvalue > ALPHA


def test_the_inflation_is_a_rows_not_the_batchs():
    noise = FixedNoise()
    for shape in ((1 << 10,), (1, 1 << 10), (64, 1 << 10)):
        laplace_release(np.zeros(shape), 1.0, 2.0, noise)
        assert noise.scale == (1.0 + 2.0**-20 * 2.0**10) / 2.0


def test_rounding_moves_neighbours_apart_by_no_more_than_the_inflation():
    rng = np.random.default_rng(0)
    grid = grid_of(1.0)
    for _ in range(50):
        step = rng.laplace(size=300)
        # just below the middle between two points: every coordinate that moves at all moves a whole cell
        one = (rng.integers(0, 99, 300) + 0.5) * grid - 1e-12
        other = one + step / np.abs(step).sum()
        noise = FixedNoise()
        released = [laplace_release(value, 1.0, 1.0, noise) for value in (one, other)]
        assert np.abs(released[0] - released[1]).sum() <= noise.scale


def test_values_that_round_alike_come_out_alike_to_the_last_bit():
    tiny = 0.3 * grid_of(1.0)
    for drawn in (0.0, -0.0, -tiny, tiny, 0.7):
        outputs = {
            laplace_release(np.array([value]), 1.0, 1.0, FixedNoise(drawn)).tobytes()
            for value in (0.0, -0.0, tiny, -tiny, -5e-324)
        }
        assert len(outputs) == 1


def test_float32_rows_and_every_shape_are_taken_and_left_as_they_are():
    for shape in ((), (0,), (5,), (2, 3), (2, 0), (0, 3)):
        value = np.full(shape, 0.25, dtype=np.float32)
        released = laplace_release(value, 1.0, 1.0, TestNoise(1))
        assert released.shape == shape and released.dtype == np.float64
        assert (value == 0.25).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_release_refuses_what_was_not_clipped(value):
    with pytest.raises(ValueError, match="finite"):
        laplace_release(np.array([[0.0, 1.0], [value, 0.0]]), 1.0, 1.0, SecureNoise())


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_invalid([0.0, math.nan]),
        np.ones(3).view(np.recarray),
        np.ones(3, dtype=np.int64),
        np.ones(3, dtype=np.longdouble),
        np.ones(3, dtype=object),
        [1.0, 2.0],
        1.0,
    ],
)
def test_a_release_refuses_what_is_not_a_plain_float_array(value):
    with pytest.raises(ValueError, match="plain"):
        laplace_release(value, 1.0, 1.0, SecureNoise())


@pytest.mark.parametrize(
    ("sensitivity", "epsilon"),
    [
        (0.0, 1.0),
        (1.0, 0.0),
        (-1.0, -1.0),
        (math.inf, 1.0),
        (1.0, -1.0),
        (math.nan, 1.0),
        (1.0, math.nan),
        (1e200, 1e-200),
    ],
)
def test_a_release_refuses_parameters_that_give_no_noise(sensitivity, epsilon):
    with pytest.raises(ValueError, match="positive"):
        laplace_release(np.zeros(2), sensitivity, epsilon, SecureNoise())


@pytest.mark.parametrize(("value", "epsilon"), [(2.0**32, 1.0), (-(2.0**32), 1.0), (0.0, 1e-8)])
def test_a_release_refuses_what_the_grid_cannot_hold_exactly(value, epsilon):
    with pytest.raises(ValueError, match="too large for the grid"):
        laplace_release(np.array([1.0, value]), 1.0, epsilon, SecureNoise())
    laplace_release(np.array([1.0, value / 2]), 1.0, epsilon * 10, SecureNoise())


@pytest.mark.parametrize("sensitivity", [1e-310, 1e-305, 1e300])
def test_a_release_refuses_a_sensitivity_at_the_ends_of_float64(sensitivity):
    with pytest.raises(ValueError, match="rescale"):
        laplace_release(np.zeros(2), sensitivity, 1.0, SecureNoise())


def test_one_draw_for_all_coordinates_is_refused():
    class Lazy(FixedNoise):
        def laplace(self, shape, scale):
            return np.zeros(1)

    with pytest.raises(ValueError, match="each coordinate"):
        laplace_release(np.zeros(3), 1.0, 1.0, Lazy())


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_an_attacker_with_a_million_releases_finds_no_set_beyond_epsilon(epsilon):
    """Each row is a release of its own, two records at the two ends of the clipped set; half the noise is caught."""
    trials, noise = 1_000_000, TestNoise(41)

    def most(scale):
        one, two = (laplace_release(np.full((trials, 1), x), 1.0, epsilon * scale, noise) for x in (0.0, 1.0))
        found = -math.inf
        for threshold in np.linspace(-1.0, 2.0, 31):
            above, false = int((two > threshold).sum()), int((one > threshold).sum())
            # Clopper and Pearson's bounds of both rates
            least, largest = (
                stats.beta.ppf(ALPHA, above, trials - above + 1),
                stats.beta.isf(ALPHA, false + 1, trials - false),
            )
            found = max(found, math.log(least / largest))
        return found

    assert 0.9 * epsilon < most(1.0) < epsilon
    assert most(2.0) > epsilon

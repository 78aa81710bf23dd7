"""The noise's distribution against theory. The seeds were fixed beforehand and each bound is passed with odds of 1e-6
or less against a right generator, so a failure means a wrong one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sfumato_common.mechanisms.noise import SecureNoise, TestNoise

ALPHA = 1e-6
COUNT = 1_000_000
LARGEST_Z = stats.norm.isf(ALPHA / 2)


@pytest.fixture(scope="module")
def drawn():
    return TestNoise(20260101).normal((COUNT,), 1.0)


class Words(TestNoise):
    """The generator fed with words of our choice."""

    def __init__(self, word):
        super().__init__(0)
        self._word = word

    def words(self, count):
        return np.full(count, self._word, dtype=np.uint64)


def z_of_correlation(one, other):
    """The correlation of independent samples, times sqrt(n): standard normal for large n."""
    return float(np.corrcoef(one, other)[0, 1]) * math.sqrt(len(one))


def test_normals_pass_kolmogorov_and_smirnov(drawn):
    assert stats.kstest(drawn, "norm").pvalue > ALPHA
    assert stats.kstest(TestNoise(3).normal((COUNT,), 250.0) / 250.0, "norm").pvalue > ALPHA


def test_normals_pass_anderson_and_darling(drawn):
    sample = np.sort(drawn[:200_000])
    size = len(sample)
    odd = 2.0 * np.arange(1, size + 1) - 1.0
    squared = -size - np.mean(odd * (stats.norm.logcdf(sample) + stats.norm.logsf(sample[::-1])))
    # for a fully given distribution P(A^2 > 13.2) is about 1e-6 (Marsaglia and Marsaglia 2004)
    assert squared < 13.2


def test_first_four_moments(drawn):
    root = math.sqrt(COUNT)
    assert abs(drawn.mean()) * root < LARGEST_Z
    assert abs((drawn**2).mean() - 1.0) * root / math.sqrt(2.0) < LARGEST_Z
    assert abs((drawn**3).mean()) * root / math.sqrt(15.0) < LARGEST_Z
    assert abs((drawn**4).mean() - 3.0) * root / math.sqrt(96.0) < LARGEST_Z


def test_tails_hold_as_many_draws_as_a_normal_has():
    noise, size, blocks = TestNoise(7), COUNT, 20
    counts = np.zeros((3, 2))
    for _ in range(blocks):
        block = noise.normal((size,), 1.0)
        for row, bound in enumerate((3.0, 4.0, 5.0)):
            counts[row] += (block > bound).sum(), (block < -bound).sum()
    # at 5 standard deviations 5.7 are expected on each side: tails cut anywhere below are seen
    expected = size * blocks * stats.norm.sf([[3.0], [4.0], [5.0]])
    assert (stats.poisson.cdf(counts, expected) > ALPHA).all()
    assert (stats.poisson.sf(counts - 1, expected) > ALPHA).all()
    cells = -np.diff(np.vstack([counts, np.zeros(2)]), axis=0).ravel()
    wanted = -np.diff(np.vstack([expected, np.zeros(1)]), axis=0).repeat(2)
    assert stats.chi2.sf(((cells - wanted) ** 2 / wanted).sum(), len(cells)) > ALPHA


def test_bins_of_equal_probability_are_equally_full(drawn):
    bins = 1024
    counts = np.bincount((stats.norm.cdf(drawn) * bins).astype(int), minlength=bins)
    assert stats.chisquare(counts).pvalue > ALPHA


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 64, 16_384, 32_768, COUNT // 2])
def test_draws_do_not_know_each_other(drawn, lag):
    # 16384 pairs are one block, and a draw's Box-Muller partner stands half the array away; sizes too: partners share
    # a radius, and only their angle keeps them apart
    for values in (drawn, np.abs(drawn), drawn**2):
        assert abs(z_of_correlation(values[:-lag], values[lag:])) < LARGEST_Z


def test_partners_fill_the_plane_evenly(drawn):
    cosine, sine = drawn.reshape(2, -1)
    angle = np.arctan2(sine, cosine) / (2.0 * math.pi) + 0.5
    radius = -np.expm1(-(cosine**2 + sine**2) / 2.0)
    assert stats.kstest(angle, "uniform").pvalue > ALPHA
    assert stats.kstest(radius, "uniform").pvalue > ALPHA
    cells = np.histogram2d(angle, radius, bins=32, range=((0, 1), (0, 1)))[0]
    assert stats.chisquare(cells.ravel()).pvalue > ALPHA


def test_successive_calls_and_two_sources_are_independent():
    noise, size = TestNoise(11), 200_000
    first, second = noise.normal((size,), 1.0), noise.normal((size,), 1.0)
    for other in (second, TestNoise(12).normal((size,), 1.0)):
        assert abs(z_of_correlation(first, other)) < LARGEST_Z
        assert abs(z_of_correlation(np.abs(first), np.abs(other))) < LARGEST_Z
        assert not np.isin(first, other).any()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (7, 11), (32_767,), (32_769,), (3, 5, 4369)])
def test_every_count_is_filled(shape):
    values = TestNoise(13).normal(shape, 1.0)
    assert values.shape == shape and values.dtype == np.float64
    assert len(np.unique(values)) == values.size
    assert (values != 0.0).all() and (np.abs(values) < 9.5).all()
    assert TestNoise(13).uniform(shape).shape == shape


def test_uniforms_are_uniform_down_to_their_low_bits():
    values = TestNoise(17).uniform((COUNT,))
    assert stats.kstest(values, "uniform").pvalue > ALPHA
    for scale in (2.0**10, 2.0**30, 2.0**42):
        assert stats.kstest(values * scale % 1.0, "uniform").pvalue > ALPHA
    assert abs(z_of_correlation(values[:-1], values[1:])) < LARGEST_Z


@pytest.mark.parametrize("word", [0, 1, 2**11 - 1, 2**12, 2**63 - 1, 2**63, 2**64 - 2**11, 2**64 - 1])
def test_no_word_of_the_stream_gives_an_end_or_something_not_finite(word):
    source = Words(word)
    assert 0.0 < source.uniform((1,))[0] < 1.0
    assert np.isfinite(source.normal((2,), 1.0)).all()


def test_the_tail_is_cut_where_the_documentation_says():
    assert Words(0).normal((1,), 1.0)[0] == pytest.approx(math.sqrt(128.0 * math.log(2.0)), rel=1e-12)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="long double is no wider than double here")
def test_rounding_moves_a_draw_by_no_more_than_the_documentation_says():
    wide, pairs = np.longdouble, 16_000
    words = TestNoise(19).words(2 * pairs)
    radius = np.sqrt(-2 * np.log(((words[:pairs] >> 1).astype(wide) + wide(0.5)) * wide(2) ** -63))
    angle = 8 * np.arctan(wide(1)) * (words[pairs:] >> 11).astype(wide) * wide(2) ** -53
    exact = np.stack([radius * np.cos(angle), radius * np.sin(angle)])
    moved = np.abs(exact - TestNoise(19).normal((2, pairs), 1.0))
    assert (moved < 1.5e-15 * (radius + 1 / radius)).all()


def test_the_secure_source_has_the_same_distribution():
    source = SecureNoise()
    # keyed afresh in every run: odds of 1e-12 against a false alarm
    assert stats.kstest(source.normal((300_000,), 2.0) / 2.0, "norm").pvalue > 1e-12
    assert stats.kstest(source.uniform((300_000,)), "uniform").pvalue > 1e-12

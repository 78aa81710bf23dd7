"""Mechanisms on single records: hypothesis looks for rows that move further than the noise covers; noise by epsilon."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from sfumato_common.accounting.events import KAverageGaussian, LocalGaussian, LocalLaplace, RandomisedResponse
from sfumato_common.mechanisms.clipping import clip_rows
from sfumato_common.mechanisms.grid import grid_of
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder

ALPHA = 1e-6
CLIPS = ("l1", "elementwise", "l2")
ANY = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)


class Silence:
    """No noise at all; remembers the scale it was asked for."""

    test = True

    def normal(self, shape, scale):
        self.scale = scale
        return np.zeros(shape)

    laplace = normal


def released(rows, radius, clip, strength):
    """What a zero-noise source lets through, and the scale of the noise that was asked for."""
    source = Silence()
    recorder = NoiseRecorder(source, "entry")
    if clip == "l2":
        return recorder.local_gaussian(rows, radius, strength), source.scale
    return recorder.local_laplace(rows, radius, strength, clip), source.scale


def pairs_of_cohorts():
    shape = st.tuples(st.integers(1, 4), st.integers(1, 9))
    dtypes = st.sampled_from([np.float32, np.float64])
    return st.tuples(shape, dtypes).flatmap(
        lambda drawn: st.tuples(
            hnp.arrays(np.float64, drawn[0], elements=ANY).map(lambda a: _as(a, drawn[1])),
            hnp.arrays(np.float64, drawn[0][1], elements=ANY).map(lambda a: _as(a, drawn[1])),
            st.integers(0, drawn[0][0] - 1),
        )
    )


def _as(array, dtype):
    with np.errstate(over="ignore"):
        return array.astype(dtype)


@pytest.mark.parametrize("clip", CLIPS)
@given(pairs_of_cohorts(), st.floats(1e-6, 1e6), st.floats(0.1, 100.0))
@settings(max_examples=100, deadline=None)
def test_replacing_a_record_moves_its_row_alone_and_no_further_than_the_noise_covers(clip, cohorts, radius, strength):
    rows, other, place = cohorts
    replaced = rows.copy()
    replaced[place] = other
    (one, scale), (two, _) = (released(values, radius, clip, strength) for values in (rows, replaced))
    kept = np.arange(len(rows)) != place
    assert one[kept].tobytes() == two[kept].tobytes()
    change, width = np.abs(one[place] - two[place]), rows.shape[1]
    slack = 1.0 + 1e-12
    if clip == "l2":
        assert np.linalg.norm(change) <= scale / strength * slack
        assert np.linalg.norm(change) <= 2 * radius + grid_of(2 * radius) * math.sqrt(width)
    else:
        # the definition: exp(change / b) never beyond exp(epsilon)
        assert change.sum() <= scale * strength * slack
        diameter = 2 * radius * (width if clip == "elementwise" else 1)
        assert change.sum() <= (diameter + grid_of(diameter) * width) * slack
        if clip == "elementwise":
            assert change.max() <= (2 * radius + grid_of(diameter)) * slack


@pytest.mark.parametrize("clip", CLIPS)
def test_the_bound_is_reached_so_that_noise_is_no_larger_than_it_must_be(clip):
    rows = np.full((2, 8), 100.0)
    rows[1] = -100.0
    one, scale = released(rows, 3.0, clip, 2.0)
    change = np.abs(one[0] - one[1])
    if clip == "l2":
        assert np.linalg.norm(change) == pytest.approx(6.0, rel=1e-5)
        assert scale == pytest.approx(12.0, rel=1e-5)
    else:
        assert change.sum() == pytest.approx(48.0 if clip == "elementwise" else 6.0, rel=1e-5)
        assert scale == pytest.approx(change.sum() / 2.0, rel=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_a_huge_record_changes_no_other_and_an_inner_one_is_left_alone(clip):
    """The published CADP clips by the matrix norm: one large record scales all others down."""
    rows = np.random.default_rng(0).normal(size=(5, 6)) * 0.1
    alone = clip_rows(rows, 4.0, clip)
    assert np.allclose(alone, rows, rtol=1e-11, atol=0.0)
    for huge in (1e3, 1e30, 1e308, math.inf, math.nan):
        beside = rows.copy()
        beside[2] = huge
        found = clip_rows(beside, 4.0, clip)
        assert np.array_equal(np.delete(found, 2, axis=0), np.delete(alone, 2, axis=0))
        assert np.isfinite(found).all()


@pytest.mark.parametrize("clip", ["l1", "l2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_long_rows_in_any_memory_order_stay_inside_their_ball(clip, order):
    rows = np.asarray(np.random.default_rng(1).normal(size=(3, 200_000)) * 1e3, order=order)
    rows[2, 0] = 1e3  # beside it each of the others is too small to be added, and all together are not
    rows[2, 1:] = 1e-13 if clip == "l1" else 1e-5
    for radius in (1e-140, 1e-3, 1.0, 100.0):
        norms = [math.fsum(np.abs(row)) if clip == "l1" else math.hypot(*row) for row in clip_rows(rows, radius, clip)]
        assert max(norms) <= radius
        assert min(norms) == pytest.approx(radius, rel=1e-11)


def test_rows_no_float_can_square_are_clipped_too():
    rows = np.array([[1e-200, -1e-200], [1e200, 0.0], [5e-324, 0.0]])
    assert np.linalg.norm(clip_rows(rows, 1e-220, "l2") * 1e220, axis=1) == pytest.approx([1.0, 1.0, 0.0], abs=1e-9)


def test_what_is_not_finite_counts_as_zero():
    rows = np.array([[math.nan, 1.0, math.inf], [-math.inf, math.nan, math.nan]])
    for clip in CLIPS:
        assert clip_rows(rows, 5.0, clip) == pytest.approx(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("clip", ["l1", "elementwise"])
def test_the_noise_depends_on_epsilon_throughout(clip):
    """The published CADP's scale is 0.5 for every epsilon up to 8."""
    noise, shape, radius = TestNoise(1), (2_000, 25), 1.5
    diameter = 2 * radius * (25 if clip == "elementwise" else 1)
    spreads = []
    for epsilon in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0):
        drawn = NoiseRecorder(noise, "entry").local_laplace(np.zeros(shape), radius, epsilon, clip)
        scale = diameter / epsilon
        assert stats.kstest(drawn.ravel() / scale, "laplace").pvalue > ALPHA
        # |x| / b is exponential: the mean of 50,000 lies within 5 / sqrt(50,000) of 1
        spreads.append(np.abs(drawn).mean())
        assert spreads[-1] == pytest.approx(scale, rel=5.0 / math.sqrt(drawn.size))
    assert all(one > 1.8 * two for one, two in pairwise(spreads))


def test_gaussian_noise_is_the_multiplier_times_twice_the_radius():
    drawn = NoiseRecorder(TestNoise(2), "entry").local_gaussian(np.zeros((2_000, 25)), 1.5, 0.7)
    assert stats.kstest(drawn.ravel() / (0.7 * 3.0), "norm").pvalue > ALPHA


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 6), st.floats(-3, 6))
@settings(max_examples=60, deadline=None)
def test_a_member_moves_its_groups_mean_alone_by_twice_the_radius_over_k(seed, groups, k, decades):
    rng, source = np.random.default_rng(seed), Silence()
    members = rng.normal(size=(groups, k, 7)) * 10.0**decades
    replaced = members.copy()
    replaced[0, 1] = rng.normal(size=7) * 10.0 ** rng.integers(-3, 6)
    one, two = (NoiseRecorder(source, "entry").k_average(value, 2.0, 1.0) for value in (members, replaced))
    assert np.array_equal(one[1:], two[1:])
    assert np.linalg.norm(one[0] - two[0]) <= 4.0 / k + grid_of(4.0 / k) * math.sqrt(7)
    assert np.linalg.norm(one[0] - two[0]) <= source.scale


@pytest.mark.parametrize(("categories", "epsilon"), [(2, 0.5), (2, 3.0), (5, 1.0)])
def test_answers_have_the_stated_odds(categories, epsilon):
    count = 200_000
    for truth in (0, categories - 1):
        labels = np.full(count, truth, dtype=np.int64)
        told = NoiseRecorder(TestNoise(3), "entry").randomised_response(labels, categories, epsilon)
        expected = np.full(categories, count / (math.exp(epsilon) + categories - 1))
        expected[truth] *= math.exp(epsilon)
        assert told.dtype == np.int64
        assert stats.chisquare(np.bincount(told, minlength=categories), expected).pvalue > ALPHA


def test_a_label_is_never_told_more_surely_than_uniforms_can_carry():
    class Smallest(TestNoise):
        def uniform(self, shape):
            return np.full(shape, 1e-9)

    labels = np.ones(3, dtype=np.int64)
    for epsilon in (19.0, 50.0, 1e6):
        told = NoiseRecorder(Smallest(0), "entry").randomised_response(labels, 2, epsilon)
        assert (told == 0).all()  # a lie with odds of 2e-9, for 50 as for 20


def test_labels_that_are_no_categories_are_a_fault():
    for labels in ([2], [-1]):
        with pytest.raises(ValueError, match="none of the categories"):
            NoiseRecorder(TestNoise(4), "entry").randomised_response(np.array(labels), 2, 1.0)


def test_what_ran_is_listed_in_order():
    recorder, rows = NoiseRecorder(TestNoise(5), "entry"), np.zeros((4, 3))
    recorder.local_laplace(rows, 1.0, 2.0, "l1")
    recorder.local_gaussian(rows, 1.0, 0.9)
    recorder.k_average(rows.reshape(2, 2, 3), 1.0, 1.1)
    recorder.randomised_response(np.zeros(4, dtype=np.int64), 3, 0.4)
    assert recorder.executed == (
        LocalLaplace(2.0),
        LocalGaussian(0.9),
        KAverageGaussian(1.1, 2),
        RandomisedResponse(3, 0.4),
    )
    assert recorder.draws == 4
    with pytest.raises(ValueError, match="L1 diameter"):
        recorder.local_laplace(rows, 1.0, 2.0, "l2")

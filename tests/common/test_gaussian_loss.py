"""Loss distributions that are computed over arrays are the library's, mass by mass."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import NeighboringRelation
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_common.accounting.gaussian_loss import _ArrayLoss, gaussian_loss
from sfumato_common.errors import LedgerError

CLOSE = 1e-12  # of all mass: rounding of single operations


def library(noise, grid, reach=1.0, rate=1.0, *, replaced=False):
    relation = NeighboringRelation.REPLACE_ONE if replaced else NeighboringRelation.ADD_OR_REMOVE_ONE
    return from_gaussian_mechanism(
        noise,
        sensitivity=reach,
        value_discretization_interval=grid,
        sampling_prob=rate,
        neighboring_relation=relation,
    )


def masses(loss):
    """Of both directions: where they begin, each mass, and that of an infinite loss."""
    dense = [pmf.to_dense_pmf() for pmf in (loss._pmf_remove, loss._pmf_add)]  # few masses are kept as a dictionary
    return [(pmf._lower_loss, np.asarray(pmf._probs), pmf._infinity_mass) for pmf in dense]


def assert_same(found, expected):
    for (low, probs, lost), (its_low, its_probs, its_lost) in zip(masses(found), masses(expected), strict=True):
        assert low == its_low and probs.shape == its_probs.shape
        assert np.abs(probs - its_probs).max() <= CLOSE
        assert lost == pytest.approx(its_lost, rel=1e-9, abs=1e-18)


# what plans hold: one-shot releases, DP-SGD at small and large rates, averages of k, next to no noise and much
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize(
    ("noise", "reach", "rate"),
    [
        (1.0, 1.0, 1.0), (0.644, 2.0, 1.0), (4.0, math.sqrt(2.0), 1.0), (1.1021, 1.0, 0.09), (0.9495, 1.0, 0.09),
        (0.6, 1.0, 0.001), (8.0, 1.0, 0.5), (2.0, 1.0, 0.999), (0.3, 1.0, 0.2), (30.0, 1.0, 0.01),
    ],
)  # fmt: skip
def test_every_mass_is_the_librarys(noise, reach, rate, replaced):
    found, expected = (make(noise, 1e-3, reach, rate, replaced=replaced) for make in (gaussian_loss, library))
    assert_same(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.35, 20.0),
    st.sampled_from([1.0, math.sqrt(2.0), 2.0]),
    st.floats(1e-4, 1.0),
    st.booleans(),
    st.booleans(),
)
def test_whatever_noise_and_rate_are(noise, reach, rate, replaced, all_of_them):
    terms = (noise, 4e-3, reach, 1.0 if all_of_them else rate)
    assert_same(gaussian_loss(*terms, replaced=replaced), library(*terms, replaced=replaced))


@pytest.mark.parametrize("replaced", [False, True])
def test_at_the_accountants_own_grid_epsilons_are_the_librarys_after_composition(replaced):
    terms = (1.1021, 1e-4, 1.0, 0.09)
    found, expected = (make(*terms, replaced=replaced).self_compose(60) for make in (gaussian_loss, library))
    for delta in (1e-7, 1e-5, 1e-3):  # a loss next to 0 has few digits in both
        assert found.get_epsilon_for_delta(delta) == pytest.approx(expected.get_epsilon_for_delta(delta), rel=1e-8)
    assert found.get_delta_for_epsilon(1.0) == pytest.approx(expected.get_delta_for_epsilon(1.0), rel=1e-8)


def test_a_loss_that_is_no_number_is_refused(monkeypatch):
    """The library's own check of what it builds lets one pass, and an epsilon of it would be none."""
    places = _ArrayLoss._places
    monkeypatch.setattr(_ArrayLoss, "_places", lambda self, epsilon: np.append(places(self, epsilon)[:-1], np.nan))
    with pytest.raises(LedgerError, match="cannot be computed"):
        gaussian_loss(1.0, 1e-2)

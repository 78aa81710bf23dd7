"""Loss distributions of Gaussian mechanisms by dp-accounting, all points of its grid at once.

The library inverts the loss at one point of the grid after another, in Python: two thirds of what an epsilon takes, and
minutes on a busy machine. Here the same formulas are computed over arrays (Connect the Dots, Doroshenko et al. 2022);
truncation, rounding and composition are the library's. A test holds all masses against those that it makes itself.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

from sfumato_common.errors import LedgerError
from sfumato_common.types import AnyArray

_ADD, _REMOVE, _REPLACE = AdjacencyType.ADD, AdjacencyType.REMOVE, AdjacencyType.REPLACE


def gaussian_loss(
    noise: float, grid: float, reach: float = 1.0, rate: float = 1.0, *, replaced: bool = False
) -> PrivacyLossDistribution:
    """What `from_gaussian_mechanism` gives: noise and `reach` (sensitivity) in one unit, Poisson sampling at `rate`.

    `replaced`: of a pair of cohorts in which one record stands in another's place, else one is added or removed. Raises
    LedgerError where a point of the grid has no number.
    """
    if replaced:
        return PrivacyLossDistribution(_masses(noise, grid, reach, rate, _REPLACE))
    removed = _masses(noise, grid, reach, rate, _REMOVE)
    return PrivacyLossDistribution(removed, None if rate == 1.0 else _masses(noise, grid, reach, rate, _ADD))


def _masses(noise: float, grid: float, reach: float, rate: float, kind: AdjacencyType) -> pld_pmf.PLDPmf:
    loss = _ArrayLoss(noise, reach, sampling_prob=rate, adjacency_type=kind)
    bounds = loss.connect_dots_bounds()
    assert bounds.epsilon_lower is not None and bounds.epsilon_upper is not None, "noise is continuous"
    low, high = math.floor(bounds.epsilon_lower / grid), math.ceil(bounds.epsilon_upper / grid)
    deltas = loss.get_delta_for_epsilon(np.arange(low, high + 1) * grid)
    if not np.isfinite(deltas).all():  # the library raises at such a point; what it builds of these does not notice
        raise LedgerError(f"the loss of noise {noise:g} at sampling rate {rate:g} cannot be computed; change the rate")
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(grid, low, high, deltas)


class _ArrayLoss(GaussianPrivacyLoss):  # type: ignore[misc]  # the library has no types
    """The library's loss of a Gaussian mechanism, whose hockey-stick divergence is computed over an array."""

    def get_delta_for_epsilon(self, epsilon: AnyArray) -> AnyArray:
        """Divergence at every epsilon [N]; the library's method says which are known without the place of the loss."""
        deltas = np.zeros(len(epsilon))
        inside = np.ones(len(epsilon), dtype=bool)
        if self.sampling_prob < 1.0 and self.adjacency_type is _ADD:
            inside = epsilon < -math.log1p(-self.sampling_prob)
        elif self.sampling_prob < 1.0 and self.adjacency_type is _REMOVE:
            inside = epsilon > math.log1p(-self.sampling_prob)
            deltas[~inside] = -np.expm1(epsilon[~inside])
        asked = epsilon[inside]
        places = self._places(asked)
        deltas[inside] = self.mu_upper_cdf(places) - np.exp(asked + self.mu_lower_log_cdf(places))
        return np.clip(deltas, 0.0, 1.0)

    def _places(self, epsilon: AnyArray) -> AnyArray:
        """The largest outcomes at which the loss is at least epsilon: `inverse_privacy_loss` of each."""
        variance = self._standard_deviation**2
        if self.adjacency_type is _REPLACE:
            return self._places_replaced(epsilon, variance)
        added = self.adjacency_type is _ADD
        unsampled = epsilon if self.sampling_prob == 1.0 else self._unsampled(epsilon, -1.0 if added else 1.0)
        places = -0.5 * self.sensitivity - unsampled * variance / self.sensitivity
        return cast(AnyArray, self.sensitivity + places if added else places)

    def _unsampled(self, epsilon: AnyArray, sign: float) -> AnyArray:
        """The loss without sampling where with it the loss is epsilon: sign * log(1 + (e^(sign * epsilon) - 1) / q)."""
        q, edge = self.sampling_prob, sign * math.log(1.0 - self.sampling_prob)
        signed = sign * epsilon
        whole = signed + math.log(1.0 / q)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = whole + np.log1p(-np.exp(math.log(1.0 / q - 1.0) - whole))
        found[signed == 0.0] = 0.0
        # as math.isclose, by which the library takes what is next to the edge for the edge
        near = np.abs(epsilon - edge) <= 1e-9 * np.maximum(np.abs(epsilon), abs(edge))
        found[near] = -np.inf
        return cast(AnyArray, sign * found)

    def _places_replaced(self, epsilon: AnyArray, variance: float) -> AnyArray:
        if self.sampling_prob == 1.0:
            return cast(AnyArray, -epsilon * variance / self.sensitivity / 2)
        q, size = self.sampling_prob, np.abs(epsilon)
        alpha = 0.5 * (self.sensitivity / self._standard_deviation) ** 2 + math.log1p(-q) - math.log(q)
        with np.errstate(divide="ignore"):
            steep = alpha + size / 2 + np.log(-np.expm1(-size)) - math.log(2.0)
        bent = -np.sign(epsilon) * np.logaddexp(0.5 * np.logaddexp(0.0, 2.0 * steep), steep)
        return cast(AnyArray, variance / self.sensitivity * (bent - epsilon / 2))

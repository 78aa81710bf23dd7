"""Epsilon by privacy random variables (Gopi et al. 2021) with Opacus's numerics: an accountant to check ours with.

It shares nothing with `accounting/accountant.py` but the events: other theory, other library, loss variables written
down here from their distributions. Losses that take few values stay off the grid (`atoms.py`) and are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, assert_never

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from sfumato_client.ledger.atoms import Atoms, answer_atoms, sum_atoms
from sfumato_common.accounting.events import (
    AboveThreshold,
    ExponentialMechanism,
    GaussianRelease,
    KAverageGaussian,
    LaplaceRelease,
    LocalGaussian,
    LocalLaplace,
    Mechanism,
    RandomisedResponse,
    SampledGaussian,
    SummedGaussian,
    Unprotected,
)
from sfumato_common.accounting.pld import Adjacency
from sfumato_common.errors import LedgerError

_Floats = npt.NDArray[np.float64]
Direction = Literal["removed", "added", "replaced"]
MESH = 1e-4  # tenfold coarser moves no figure of a shipped plan by more than 1e-5
_FARTHEST = 400.0
_TAIL = 1e-7  # share of delta that may lie beyond the grid
_FINE = 1e-9
_EXPONENTS = 2.0 ** np.arange(-3, 8)


class LossVariable(Protocol):
    """A mechanism's privacy loss ln(P/Q) under P, by its distribution function."""

    def cdf(self, t: Any) -> Any:
        """P(loss <= t)."""


@dataclass(frozen=True)
class GaussianLoss:
    """N(0, 1) against N(mu, 1): the loss is N(mu^2 / 2, mu^2) in every direction."""

    mu: float

    def cdf(self, t: Any) -> Any:
        """P(loss <= t)."""
        return ndtr((np.asarray(t) - self.mu**2 / 2) / self.mu)


@dataclass(frozen=True)
class LaplaceLoss:
    """Laplace(0, 1) against Laplace(shift, 1): loss |x - shift| - |x|, with atoms at both ends."""

    shift: float

    def cdf(self, t: Any) -> Any:
        """P(loss <= t)."""
        t = np.asarray(t)
        inside = 0.5 * np.exp((np.clip(t, -self.shift, self.shift) - self.shift) / 2)
        return np.where(t >= self.shift, 1.0, np.where(t < -self.shift, 0.0, inside))


@dataclass(frozen=True)
class SampledLoss:
    """Poisson-subsampled Gaussian (rate q < 1) when a patient is added or replaced; Opacus has the removal."""

    rate: float
    sigma: float
    direction: Direction

    def cdf(self, t: Any) -> Any:
        """P(loss <= t), from the point x at which the loss, monotone in x, is t."""
        ratio = np.exp(np.clip(np.asarray(t, dtype=np.float64), -300, 300))
        q, sigma = self.rate, self.sigma
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.direction == "added":
                # N(0) against (1-q) N(0) + q N(1): the loss falls in x and stays below -ln(1-q)
                x = sigma**2 * np.log((1 / ratio - 1 + q) / q) + 0.5
                return np.where(1 / ratio - 1 + q > 0, ndtr(-x / sigma), 1.0)
            # (1-q) N(0) + q N(1) against (1-q) N(0) + q N(-1): with y = exp(x / sigma^2) and a = q exp(-1 / 2 sigma^2),
            # the loss is t where a y^2 + (1-q)(1 - e^t) y - a e^t = 0
            a, b = q * math.exp(-0.5 / sigma**2), (1 - q) * (1 - ratio)
            root = np.sqrt(b * b + 4 * a * a * ratio)
            x = sigma**2 * np.log(np.where(b > 0, 2 * a * ratio / (b + root), (root - b) / (2 * a)))
        return (1 - q) * ndtr(x / sigma) + q * ndtr((x - 1) / sigma)


class LossDistribution:
    """The composed loss of many mechanisms in one direction: a grid's part, and values that are exact."""

    def __init__(self, losses: _Floats, weights: _Floats, atoms: Atoms) -> None:
        self._losses, self._atoms = losses, atoms
        # P(loss > losses[i - 1]) under P and, times e^-loss, under Q
        self._beyond = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
        self._beyond_q = np.append(np.cumsum((weights * np.exp(-losses))[::-1])[::-1], 0.0)

    def get_delta_for_epsilon(self, epsilon: Any) -> Any:
        """The hockey-stick divergence at each epsilon: sum over the exact values v of P(v) delta_grid(epsilon - v)."""
        return np.vectorize(self._delta, otypes=[np.float64])(epsilon)

    def get_epsilon_for_delta(self, delta: float) -> float:
        """The least epsilon, from 0, at which `delta` suffices."""
        low, high = 0.0, float(self._losses[-1] + self._atoms.losses.max())
        if self._delta(0.0) <= delta:
            return 0.0
        while high - low > _FINE:
            middle = (low + high) / 2
            low, high = (middle, high) if self._delta(middle) > delta else (low, middle)
        return high

    def _delta(self, epsilon: float) -> float:
        left = epsilon - self._atoms.losses
        at = np.searchsorted(self._losses, left, side="right")
        divergence = self._beyond[at] - np.exp(np.where(at < len(self._losses), left, 0.0)) * self._beyond_q[at]
        return float(self._atoms.weights @ np.clip(divergence, 0.0, 1.0))


def epsilon_prv(tally: Mapping[Mechanism, int], delta: float, adjacency: Adjacency) -> float:
    """Epsilon at `delta` of the mechanisms in `tally`, each run that often; 0 for none. Takes about a second.

    Infinite when one of them protected nobody. Raises LedgerError for a sum that no sensible budget allows.
    """
    if any(isinstance(event, Unprotected) for event in tally):
        return math.inf
    return max(found.get_epsilon_for_delta(delta) for found in loss_distributions(tally, delta, adjacency))


def loss_distributions(
    tally: Mapping[Mechanism, int], least_delta: float, adjacency: Adjacency
) -> tuple[LossDistribution, ...]:
    """The composed loss in every direction of `adjacency`, true for deltas from `least_delta`.

    Raises ValueError for what left unprotected, LedgerError for a sum that no sensible budget allows.
    """
    directions: tuple[Direction, ...] = ("replaced",) if adjacency == "replace-one" else ("removed", "added")
    return tuple(_compose(tally, least_delta, direction) for direction in directions)


def _compose(tally: Mapping[Mechanism, int], delta: float, direction: Direction) -> LossDistribution:
    # imported here: Opacus brings torch with it
    from opacus.accountants.analysis.prv import (
        Domain,
        TruncatedPrivacyRandomVariable,
        compose_heterogeneous,
        discretize,
    )

    parts = [(_part(event, times, direction), times) for event, times in tally.items()]
    atoms = sum_atoms(part for part, _ in parts if isinstance(part, Atoms))
    losses = [(part, times) for part, times in parts if not isinstance(part, Atoms)]
    if not losses:
        return LossDistribution(np.zeros(1), np.ones(1), atoms)
    width = _half_width(losses, delta)
    if width > _FARTHEST:
        raise LedgerError("these mechanisms cost more than can be recomputed; check what the certificate states")
    domain = Domain.create_aligned(-width, width, _mesh(losses))
    truncated = [TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max) for loss, _ in losses]
    discrete = [discretize(loss, domain) for loss in truncated]
    composed = compose_heterogeneous(discrete, [times for _, times in losses])
    return LossDistribution(composed.domain.ts, composed.pmf, atoms)


def _part(event: Mechanism, times: int, direction: Direction) -> LossVariable | Atoms:
    """The loss of one run, on a grid; or that of all `times` runs, exactly, where it takes few values."""
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV

    reach = 2 if direction == "replaced" else 1
    match event:
        case (
            GaussianRelease(noise_multiplier=sigma)
            | SummedGaussian(noise_multiplier=sigma)
            | SampledGaussian(noise_multiplier=sigma, sampling_rate=1)
        ):
            return GaussianLoss(reach / sigma)
        case KAverageGaussian(noise_multiplier=sigma):
            return GaussianLoss(math.sqrt(reach) / sigma)
        case LocalGaussian(noise_multiplier=sigma):
            return GaussianLoss(1 / sigma)
        case LaplaceRelease(noise_multiplier=scale):
            return LaplaceLoss(reach / scale)
        case SampledGaussian(noise_multiplier=sigma, sampling_rate=rate) if direction == "removed":
            removal: LossVariable = PoissonSubsampledGaussianPRV(rate, sigma)
            return removal
        case SampledGaussian(noise_multiplier=sigma, sampling_rate=rate):
            return SampledLoss(rate, sigma, direction)
        case RandomisedResponse(categories=categories, epsilon=epsilon):
            return answer_atoms(categories, epsilon, times)
        case LocalLaplace(epsilon=epsilon):
            return answer_atoms(2, epsilon, times)
        case ExponentialMechanism(epsilon=epsilon) | AboveThreshold(epsilon=epsilon):
            return answer_atoms(2, reach * epsilon, times)
        case Unprotected():
            raise ValueError("what left unprotected has no privacy loss")
        case _:
            assert_never(event)


def _mesh(losses: list[tuple[LossVariable, int]]) -> float:
    """Width of a grid cell; the most frequent Laplace loss's atoms lie on the grid, as each run adds their error."""
    shifts = [loss.shift for loss, _ in sorted(losses, key=lambda item: -item[1]) if isinstance(loss, LaplaceLoss)]
    return shifts[0] / math.ceil(shifts[0] / MESH) if shifts else MESH


def _half_width(losses: list[tuple[LossVariable, int]], delta: float) -> float:
    """How far the grid must reach on both sides: Chernoff's bound on the sum's tails, from a coarse grid's moments."""
    edges = np.linspace(-_FARTHEST, _FARTHEST, 40_001)
    worst = 1.0
    for sign in (1, -1):
        moments = np.zeros_like(_EXPONENTS)
        for loss, times in losses:
            mass = np.diff(loss.cdf(edges))
            outer = edges[1:] if sign > 0 else -edges[:-1]
            with np.errstate(divide="ignore"):
                weights = np.log(mass)
            exponents = _EXPONENTS[:, None] * outer + weights
            peak = exponents.max(axis=1)
            moments += times * (peak + np.log(np.exp(exponents - peak[:, None]).sum(axis=1)))
        worst = max(worst, float(((moments - math.log(delta * _TAIL)) / _EXPONENTS).min()))
    return worst

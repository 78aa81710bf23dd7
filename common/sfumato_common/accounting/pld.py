"""The privacy-loss distribution of every mechanism under both adjacencies: the table behind the accountant.

`add-remove`: one patient more or less. `replace-one`: another patient in one's place, the number of patients the same.
Every entry is a dominating pair (Zhu et al. 2022), so that composing the entries bounds any adaptive composition:

- Gaussian and Laplace: replacing moves a clipped sum by twice the sensitivity of adding or removing.
- Poisson-subsampled Gaussian, replace-one: (1-q) N(0) + q N(1) against (1-q) N(0) + q N(-1). It dominates in any
  dimension: for gamma >= 1 the hockey-stick divergence of two patients' gradients u and v (norms at most 1) is the
  largest q N_u(S) - q gamma N_v(S) - (1-q)(gamma-1) N_0(S) over sets S. Among the S with N_u(S) = p, N_v(S) and N_0(S)
  are no smaller than Phi(z - 2/sigma) and Phi(z - 1/sigma), z = Phi^-1(p) (Neyman and Pearson, as |u - v| <= 2 and
  |u| <= 1); with u = 1, v = -1 a half-line reaches both. Swapping u and v gives gamma < 1.
- Randomised response and vectors noised one by one have one cost for both; averages of k move the square root of two
  times as far when another patient, of another label, takes one's place (`events.py` says why).
- Exponential mechanism, above-threshold and vectors with Laplace noise: any epsilon-DP mechanism is dominated by
  randomised response over two answers (Kairouz et al. 2015). Replacing is removing and adding, which doubles a pure
  epsilon, but for vectors, where both replace one.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Literal, assert_never

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

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

Adjacency = Literal["add-remove", "replace-one"]
Pure = RandomisedResponse | ExponentialMechanism | AboveThreshold | LocalLaplace
GRID = 1e-4  # losses are multiples of it (dp-accounting's own); a pure mechanism's two or three are rounded up to it
SMALLEST_NOISE = 0.2  # one Gaussian release with it costs epsilon 33 at delta 1e-5
LARGEST_PURE_EPSILON = 50.0  # of one release without a delta


def hopeless(event: Mechanism) -> bool:
    """Whether `event` alone costs more than any sensible budget, and its distribution more memory than a site has."""
    match event:
        case GaussianRelease() | SummedGaussian() | SampledGaussian() | KAverageGaussian() | LocalGaussian():
            return event.noise_multiplier < SMALLEST_NOISE
        case LaplaceRelease():
            return event.noise_multiplier < 1 / LARGEST_PURE_EPSILON
        case RandomisedResponse() | ExponentialMechanism() | AboveThreshold() | LocalLaplace():
            return event.epsilon > LARGEST_PURE_EPSILON
        case Unprotected():
            return True
        case _:
            assert_never(event)


# a forecast composes the same mechanisms after every stage: up to 2 MB each
@lru_cache(maxsize=32)
def loss(event: Mechanism, times: int, adjacency: Adjacency) -> PrivacyLossDistribution:
    """Loss distribution of `times` runs of `event` (single steps of a SampledGaussian), on the grid.

    Raises TypeError for what left unprotected: its loss has no distribution, and no finite epsilon bounds it.
    """
    match event:
        # many Gaussian releases are one with less noise, exactly
        case GaussianRelease(noise_multiplier=sigma) | SummedGaussian(noise_multiplier=sigma):
            return _single(GaussianRelease(sigma / math.sqrt(times)), adjacency)
        case KAverageGaussian(noise_multiplier=sigma, k=k):
            return _single(KAverageGaussian(sigma / math.sqrt(times), k), adjacency)
        case LocalGaussian(noise_multiplier=sigma):
            return _single(LocalGaussian(sigma / math.sqrt(times)), adjacency)
        case (
            SampledGaussian()
            | LaplaceRelease()
            | RandomisedResponse()
            | LocalLaplace()
            | ExponentialMechanism()
            | AboveThreshold()
            | Unprotected()
        ):
            return _single(event, adjacency).self_compose(times)
        case _:
            assert_never(event)


# epsilon at a delta and the ceilings of attacks are read off the same distribution
@lru_cache(maxsize=8)
def composition(tally: tuple[tuple[Mechanism, int], ...], adjacency: Adjacency) -> PrivacyLossDistribution:
    """Loss distribution of a tally of at least one, sorted, so that equal ones are composed once. Raises as `loss`."""
    losses = (loss(event, times, adjacency) for event, times in tally)
    return reduce(lambda left, right: left.compose(right), losses)


# a forecast, a status board and a restarted site ask for the same mechanisms run more and more often; a plan has about
# sixteen with both adjacencies, of 2 MB each
@lru_cache(maxsize=32)
def _single(event: Mechanism, adjacency: Adjacency) -> PrivacyLossDistribution:
    # imported here: 1.5 s that processes which never account should not pay
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as pld

    from sfumato_common.accounting.gaussian_loss import gaussian_loss

    replaced = adjacency == "replace-one"
    reach = 2 if replaced else 1
    match event:
        case GaussianRelease(noise_multiplier=sigma) | SummedGaussian(noise_multiplier=sigma):
            return gaussian_loss(sigma, GRID, reach)
        case KAverageGaussian(noise_multiplier=sigma):
            return gaussian_loss(sigma, GRID, math.sqrt(reach))
        case LocalGaussian(noise_multiplier=sigma):
            return gaussian_loss(sigma, GRID)
        case SampledGaussian(noise_multiplier=sigma, sampling_rate=rate):
            return gaussian_loss(sigma, GRID, rate=rate, replaced=replaced)
        case LocalLaplace(epsilon=epsilon):
            return pld.from_privacy_parameters(common.DifferentialPrivacyParameters(epsilon, 0))
        case LaplaceRelease(noise_multiplier=scale):
            return pld.from_laplace_mechanism(scale, sensitivity=reach)
        case RandomisedResponse(categories=categories):
            return pld.from_randomized_response(uniform_share(event), categories)
        case ExponentialMechanism(epsilon=epsilon) | AboveThreshold(epsilon=epsilon):
            return pld.from_privacy_parameters(common.DifferentialPrivacyParameters(reach * epsilon, 0))
        case Unprotected():
            raise TypeError("what left unprotected has no privacy loss distribution")
        case _:
            assert_never(event)


def uniform_share(event: RandomisedResponse) -> float:
    """Probability with which the answer ignores the truth and is drawn from all categories: dp-accounting's `p`."""
    return event.categories / (math.exp(event.epsilon) + event.categories - 1)

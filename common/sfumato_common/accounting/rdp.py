"""Epsilon by Renyi differential privacy (Mironov 2017; Canonne et al. 2020): a bound that checks the accountant.

Another theory and other code than the loss distributions, add/remove only. It bounds from above and is some percent
loose, so a distribution's epsilon above it means that one of the two is wrong.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import assert_never

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
from sfumato_common.accounting.pld import uniform_share

_ORDERS = [1.5 + at / 4 for at in range(35)] + [*range(11, 64), 80, 96, 128, 192, 256, 512, 1024]


def epsilon_rdp(tally: Mapping[Mechanism, int], delta: float) -> float:
    """Upper bound on the epsilon at `delta` of every mechanism in `tally` run that often; 0 for none."""
    import dp_accounting
    from dp_accounting import rdp

    relation = dp_accounting.NeighboringRelation
    added = rdp.RdpAccountant(_ORDERS, relation.ADD_OR_REMOVE_ONE)
    answers = rdp.RdpAccountant(_ORDERS, relation.REPLACE_ONE)  # the only relation of interest it has for these
    # where the series of a fractional order does not converge the library leaves that order out, which is sound
    log = logging.getLogger("absl")
    quiet, log.disabled = log.disabled, True
    try:
        for event, times in tally.items():
            match event:
                case (
                    GaussianRelease(noise_multiplier=sigma)
                    | SummedGaussian(noise_multiplier=sigma)
                    | KAverageGaussian(noise_multiplier=sigma)
                    | LocalGaussian(noise_multiplier=sigma)
                ):
                    added.compose(dp_accounting.GaussianDpEvent(sigma), times)
                case SampledGaussian(noise_multiplier=sigma, sampling_rate=rate):
                    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma))
                    added.compose(step, times)
                case LaplaceRelease(noise_multiplier=scale):
                    added.compose(dp_accounting.LaplaceDpEvent(scale), times)
                case RandomisedResponse(categories=categories):
                    answers.compose(dp_accounting.RandomizedResponseDpEvent(uniform_share(event), categories), times)
                case (
                    ExponentialMechanism(epsilon=epsilon)
                    | AboveThreshold(epsilon=epsilon)
                    | LocalLaplace(epsilon=epsilon)
                ):
                    worst = RandomisedResponse(2, epsilon)
                    answers.compose(dp_accounting.RandomizedResponseDpEvent(uniform_share(worst), 2), times)
                case Unprotected():
                    return math.inf
                case _:
                    assert_never(event)
        return float(rdp.compute_epsilon(added.orders, added.rdp + answers.rdp, delta)[0]) if tally else 0.0
    finally:
        log.disabled = quiet

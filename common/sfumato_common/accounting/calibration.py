"""The one noise search: the least noise multiplier at which a run costs no more than it may.

The squared parameters mu of Gaussian mechanisms add up (Dong, Roth and Su 2022), and a Gaussian release with
parameter mu has noise multiplier 1 / mu; Balle and Wang (2018) say which mu has an (epsilon, delta).
"""

from __future__ import annotations

import math
from collections.abc import Callable

_DIGITS = 5  # of a multiplier: rounded up, so that nobody pays more


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The parameter of one Gaussian release with that epsilon and delta (Balle and Wang 2018)."""
    from dp_accounting.gaussian_mechanism import get_sigma_gaussian

    return 1.0 / float(get_sigma_gaussian(epsilon, delta))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon at `delta` of one Gaussian release with parameter `mu`."""
    from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

    return float(get_epsilon_gaussian(1.0 / mu, delta))


def sampled_guess(mu: float, sampling_rate: float, steps: int) -> float:
    """The noise multiplier of DP-SGD by the central limit theorem, where to begin a search (Bu et al. 2020, Cor. 5.4).

    mu = q sqrt(T (e^(1 / sigma^2) - 1)).
    """
    return 1.0 / math.sqrt(math.log1p((mu / sampling_rate) ** 2 / steps))


def least_noise(cost: Callable[[float], float], wanted: float, guess: float, close: float, least: float = 0.0) -> float:
    """The least noise, not below `least`, whose `cost` is at most `wanted`: within `close`, in parts of it.

    `cost` falls as noise grows; a `cost` of no noise need not be finite.
    """
    from scipy.optimize import brentq

    aim = wanted * (1.0 - close / 4)
    floor = math.log(least) if least else -math.inf

    def gap(log_noise: float) -> float:
        # logarithms are nearly straight, and a cost without a bound must not be infinite here
        found = math.log(min(max(cost(math.exp(log_noise)) / aim, 1e-9), 1e9))
        # near enough, and still below what is wanted: a cost may take seconds
        return 0.0 if abs(found) <= close / 8 else found

    low = high = max(math.log(guess), floor)
    # a cost falls at least as fast as noise grows: a step as long as the gap closes the bracket
    while gap(low) < 0.0:
        if low == floor:
            return least
        low = max(low - min(1.05 * -gap(low) + 0.01, 0.3), floor)
    while gap(high) > 0.0:
        high += min(1.05 * gap(high) + 0.01, 0.3)
    return math.exp(float(brentq(gap, low, high, xtol=close / 20, rtol=close / 20)))


def round_up(noise: float) -> float:
    """`noise` with few digits, never less of it."""
    digits = 10 ** (_DIGITS - 1 - math.floor(math.log10(noise)))
    return float(math.ceil(noise * digits) / digits)

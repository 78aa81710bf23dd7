"""White-box lower bounds on what a mechanism costs a patient, from runs with and without one (Dong et al. 2022).

The attacker sees everything that left and knows both cohorts; only the noise is secret. Only the site can run this: it
runs the product's own code on its own machine, with canaries of its choice. Nothing of it leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LowerBound:
    """An estimate of a privacy parameter, and what it is at least, with the confidence that was asked for."""

    estimate: float
    at_least: float


def gaussian_mu(gone: Floats, there: Floats, confidence: float) -> LowerBound:
    """mu of a Gaussian mechanism (Dong, Roth and Su 2022) from log ratios of runs without and with a canary, [R] each.

    Both are normal with one deviation, mu apart in units of it; the error is that of a standardised difference.
    """
    runs = min(len(gone), len(there))
    spread = math.sqrt((gone.var(ddof=1) + there.var(ddof=1)) / 2.0)
    mu = float(there.mean() - gone.mean()) / spread if spread > 0 else math.inf
    if not math.isfinite(mu):
        return LowerBound(math.inf, math.inf)
    error = math.sqrt(2.0 / runs + mu**2 / (4.0 * runs))
    return LowerBound(mu, mu - float(norm.ppf(confidence)) * error)


def pure_epsilon(gone: Floats, there: Floats, confidence: float) -> LowerBound:
    """Epsilon at delta 0 that the errors of the best threshold prove (Jagielski et al. 2020), from scores of runs.

    The threshold is chosen on one half of the runs, and judged on the other by Clopper and Pearson's (1934) intervals.
    """
    half = len(gone) // 2
    best, at = -np.inf, 0.0
    for threshold in np.unique(np.quantile(np.concatenate([gone[:half], there[:half]]), np.linspace(0.02, 0.98, 49))):
        false, seen = (gone[:half] >= threshold).mean(), (there[:half] >= threshold).mean()
        if false > 0 and seen > 0 and np.log(seen / false) > best:
            best, at = float(np.log(seen / false)), float(threshold)
    count = len(gone) - half
    false, seen = int((gone[half:] >= at).sum()), int((there[half:] >= at).sum())
    most = float(beta.ppf(confidence, false + 1, count - false))
    least = float(beta.ppf(1.0 - confidence, seen, count - seen + 1)) if seen else 0.0
    estimate = math.log(seen / false) if seen and false else float("nan")
    return LowerBound(estimate, math.log(least / most) if least > 0 else -math.inf)

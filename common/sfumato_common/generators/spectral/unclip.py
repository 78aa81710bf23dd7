"""What clipping took, put back: moments before a clip radius from those after it (post-processing).

A clip radius is the typical norm, so that half of the vectors lose length, a covariance about a fifth of itself and a
mean part of its way from the centre. How much follows from the Gaussian that is fitted anyway: its squared norm is
about a multiple of a chi-squared variable with the same mean and variance (Satterthwaite 1946).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

from sfumato_common.generators.spectral.moment_layout import Float64

# What clipping can have taken, at most: a covariance was this many times as large, a mean this many times as far off.
MOST_VARIANCE, MOST_WAY = 3.0, 1.5
# a clipped vector's squared norm stays below the radius's; where noise says otherwise, this share of it is believed
_BELIEVED = 0.9
_POINTS, _STEPS = 400, 8


def unclip_variance(total: float, squares: float, radius: float) -> float:
    """How many times as large a covariance was before its vectors were clipped to norm `radius`.

    `total` is the sum of its eigenvalues after that, `squares` that of their squares.
    """
    spread = _spread(total, squares)
    wanted = min(total, _BELIEVED * radius**2)

    def missing(times: float) -> float:
        return float(np.minimum(times * total * spread, radius**2).mean()) - wanted

    if missing(1.0) >= 0.0:
        return 1.0
    return MOST_VARIANCE if missing(MOST_VARIANCE) <= 0.0 else float(brentq(missing, 1.0, MOST_VARIANCE, xtol=1e-6))


def unclip_way(offset: float, total: float, squares: float, radius: float) -> float:
    """How many times as far from the centre a mean was before vectors were clipped about it to norm `radius`.

    `offset` is its distance after that; `total` and `squares` are those of the covariance about it, before that.
    """
    spread, times = total * _spread(total, squares), 1.0
    for _ in range(_STEPS):
        kept = np.minimum(1.0, radius / np.sqrt(spread + (times * offset) ** 2))
        times = min(1.0 / float(kept.mean()), MOST_WAY)
    return times


def _spread(total: float, squares: float) -> Float64:
    """Squared norms of a Gaussian over their mean, at evenly likely points [N]."""
    freedom = total**2 / squares
    points = chi2.ppf((np.arange(_POINTS) + 0.5) / _POINTS, freedom) / freedom
    return np.asarray(points / points.mean())

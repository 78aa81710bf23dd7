"""What clipping took, put back: moments before a clip radius from those after it (post-processing).

A clip radius is the typical norm, so half of the vectors lose length, a variance about a fifth of itself and a mean
part of its way from the centre. Under the Gaussian that is fitted anyway, the clipped moments follow from the true
ones; those are found by repeating the step from one to the other. The draws are fixed: neither secret nor of anybody.
"""

from __future__ import annotations

import numpy as np

from sfumato_common.generators.spectral.moment_layout import Float64

_DRAWS, _STEPS = 2048, 12
# what clipping can have taken, at most: a variance was this many times as large, a mean this many times as far off
MOST_VARIANCE, MOST_WAY = 3.0, 1.5
# a clipped vector's squared norm stays below the radius's; where noise says otherwise, this share of it is believed
_BELIEVED = 0.9


def unclip_moments(offset: Float64, clipped: Float64, radius: float) -> tuple[Float64, Float64]:
    """Mean [d] and covariance [d, d] of a Gaussian from those of its vectors clipped to norm `radius`.

    `offset` [d] is the mean of vectors clipped about a centre, `clipped` [d, d] the covariance of vectors clipped about
    their mean. Clipping to a ball keeps the axes of a Gaussian about its centre, so that only eigenvalues are sought.
    """
    values, axes = np.linalg.eigh(clipped)
    draws = _normal(len(values))
    found = _variances(np.maximum(values, 1e-12), draws, radius)
    mean = _mean(offset @ axes, draws * np.sqrt(found), radius)
    return axes @ mean, np.asarray((axes * found) @ axes.T)


def _variances(clipped: Float64, draws: Float64, radius: float) -> Float64:
    """Variances [d] of independent coordinates from those after clipping."""
    wanted = clipped * min(1.0, _BELIEVED * radius**2 / float(clipped.sum()))
    squares, found = np.square(draws), wanted
    for _ in range(_STEPS):
        kept = np.minimum(1.0, radius**2 / (squares @ found))
        # E[kept z^2] as E[kept] + E[kept (z^2 - 1)]: the second is small, and so is the error of the draws
        share = kept.mean() + (kept - kept.mean()) @ (squares - 1.0) / len(squares)
        found = np.clip(wanted / share, clipped, MOST_VARIANCE * clipped)
    return np.asarray(found)


def _mean(clipped: Float64, spread: Float64, radius: float) -> Float64:
    """Mean [d] of vectors from their mean after clipping; `spread` [N, d] are draws about it."""
    found = clipped
    for _ in range(_STEPS):
        vectors = spread + found
        kept = np.minimum(1.0, radius / np.linalg.norm(vectors, axis=1))
        found = found + clipped - kept @ vectors / len(vectors)
    reach = MOST_WAY * float(np.linalg.norm(clipped))
    return np.asarray(found * min(1.0, reach / max(float(np.linalg.norm(found)), 1e-12)))


def _normal(size: int) -> Float64:
    half = np.random.default_rng(0).normal(size=(_DRAWS, size))
    return np.concatenate([half, -half])

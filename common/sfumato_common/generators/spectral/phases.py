"""The release of moments as sums over sites, a phase for each mechanism that rests on the one before (see `release`).

All sites clip about the pooled centre and class means and with the pooled radii, which the coordinator sends back. A
vector is clipped to norm 1 about whatever centre and by whatever radius, so that one that lies costs use, not privacy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.spectral.layout import TAIL_GUESS
from sfumato_common.generators.spectral.moment_layout import Float64, MomentLayout, Weights
from sfumato_common.generators.spectral.sums import (
    NORM_WEIGHT,
    centre_of,
    centre_part,
    charged_norm,
    class_means,
    main_noise,
    moments_part,
    norms_part,
    sums_part,
)
from sfumato_common.generators.summed import Phase
from sfumato_common.types import AnyArray, Arrays

FEATURES, TAIL, SPREAD = "norm-features", "norm-tail", "norm-spread"


def moment_multipliers(weights: Weights, norms: int, noise_multiplier: float) -> dict[str, float]:
    """Noise multipliers by phase, in their order; `norms` are measured (0: the plan's radii stand).

    The norm of features, and that above the band, are measured first, the one about the centre after the centre.
    """
    sigma = noise_multiplier / math.sqrt(1.0 - norms * NORM_WEIGHT**2)
    parts = {
        "centre": sigma / weights.centre_sensitivity,
        "sums": sigma / weights.sums_sensitivity,
        "moments": sigma / weights.moment,
    }
    if not norms:
        return parts
    first = noise_multiplier / (NORM_WEIGHT * math.sqrt(norms - 1))
    spread = noise_multiplier / NORM_WEIGHT
    return {
        "norms": first,
        "centre": parts["centre"],
        "spread": spread,
        "sums": parts["sums"],
        "moments": parts["moments"],
    }


def moment_phases(layout: MomentLayout, noise_multiplier: float) -> tuple[Phase, ...]:
    """The phases of a layout's release."""
    weights, norms = layout.weights, layout.norms if layout.charged_radii else 0
    shapes: dict[str, Mapping[str, tuple[int, ...]]] = {
        "norms": {name: (2,) for name in (FEATURES, TAIL)[: norms - 1]} if norms else {},
        "centre": {"centre": (1 + layout.features,)},
        "spread": {SPREAD: (2,)},
        "sums": {"sums": (layout.classes, 1 + layout.features)},
        "moments": {"moments": (layout.classes, layout.pairs)},
    }
    sensitivities = {
        "norms": NORM_WEIGHT * math.sqrt(max(1, norms - 1)),
        "centre": weights.centre_sensitivity,
        "spread": NORM_WEIGHT,
        "sums": weights.sums_sensitivity,
        "moments": weights.moment,
    }
    multipliers = moment_multipliers(weights, norms, noise_multiplier)
    return tuple(Phase(shapes[name], sensitivities[name], noise) for name, noise in multipliers.items())


def moments_summand(
    layout: MomentLayout,
    phase: Phase,
    noise_multiplier: float,
    features: Float64,
    labels: npt.NDArray[np.int64],
    weights: Float64,
    earlier: Arrays,
    above: Float64 | None = None,
) -> dict[str, AnyArray]:
    """A site's part of `phase` before noise, of features [M, d] about the sums of the phases before.

    `noise_multiplier` is that of those sums; `above` [M, 1] as of `release.noised_moments`.
    """
    if FEATURES in phase.shapes:
        parts = {FEATURES: norms_part(features, layout.mean_radius, weights)}
        if TAIL in phase.shapes:
            assert above is not None, "the layout measures what lies above the band"
            parts[TAIL] = norms_part(above, TAIL_GUESS, weights)
        return parts
    sigma = main_noise(layout, noise_multiplier)
    own = layout.with_radii(_radius(earlier, FEATURES, layout.mean_radius, noise_multiplier), layout.spread_radius)
    if "centre" in phase.shapes:
        return {"centre": centre_part(own, features, weights)}
    about = centre_of(own, np.asarray(earlier["centre"], np.float64), sigma)
    if SPREAD in phase.shapes:
        return {SPREAD: norms_part(features - about, layout.spread_radius, weights)}
    own = own.with_radii(own.mean_radius, _radius(earlier, SPREAD, layout.spread_radius, noise_multiplier))
    if "sums" in phase.shapes:
        return {"sums": sums_part(own, features, labels, weights, about)}
    means = class_means(own, np.asarray(earlier["sums"], np.float64), about, sigma)
    return {"moments": moments_part(own, features, labels, weights, means)}


def read_moments(pooled: Arrays) -> dict[str, AnyArray]:
    """The sums of all phases in the form of one site's release (see `release.noised_moments`)."""
    found = {name: np.asarray(pooled[name]) for name in ("centre", "sums", "moments")}
    norms = [np.asarray(pooled[name]) for name in (FEATURES, SPREAD, TAIL) if name in pooled]
    return found | ({"norms": np.stack(norms)} if norms else {})


def _radius(earlier: Arrays, name: str, guess: float, noise_multiplier: float) -> float:
    if name not in earlier:
        return guess
    return charged_norm(np.asarray(earlier[name], np.float64), guess, noise_multiplier)

"""A site's whole spectral release, mechanism by mechanism, in the order in which each may rest on the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.spectral.layout import (
    CENTRE_SENSITIVITY,
    MOMENT_WEIGHT,
    NORM_WEIGHT,
    SUMS_SENSITIVITY,
    TAIL_GUESS,
    Float64,
    Layout,
    above_band,
    centre_of,
    centre_part,
    charged_norm,
    class_means,
    features_of,
    main_noise,
    moments_part,
    norms_part,
    sums_part,
)
from sfumato_common.types import AnyArray, ByteImages

# (sum over patients, its L2 sensitivity, noise multiplier) -> the noised sum
Mechanism = Callable[[Float64, float, float], Float64]


def noised_release(
    layout: Layout,
    noise_multiplier: float,
    images: ByteImages,
    labels: npt.NDArray[np.int64],
    weights: Float64,
    mechanism: Mechanism,
) -> dict[str, AnyArray]:
    """`centre` [1 + d], `sums` [K, 1 + d] and `moments` [K, d(d+1)/2] of images [M, S, S] or [M, S, S, 3]; float32.

    With charged radii `norms` [3, 2] too, which alone tells of the amplitude above the band. `weights` [M] are 1 over
    the number of the owner's images. All draws together cost one Gaussian release.
    """
    sigma, features, norms = main_noise(layout, noise_multiplier), features_of(layout, images), []

    # float32 before anything is derived: what follows must be what the coordinator can compute from the message
    def drawn(part: Float64, weight: float, deviation: float) -> npt.NDArray[np.float32]:
        return mechanism(part, weight, deviation / weight).astype(np.float32)

    def measure(vectors: Float64, guess: float) -> None:
        norms.append(drawn(norms_part(vectors, guess, weights), NORM_WEIGHT, noise_multiplier))

    def radius(vectors: Float64, guess: float) -> float:
        if not layout.charged_radii:
            return guess
        measure(vectors, guess)
        return charged_norm(norms[-1].astype(np.float64), guess, noise_multiplier)

    own = replace(layout, mean_radius=radius(features, layout.mean_radius))
    centre = drawn(centre_part(own, features, weights), CENTRE_SENSITIVITY, sigma)
    about = centre_of(own, centre.astype(np.float64), sigma)
    own = replace(own, spread_radius=radius(features - about, layout.spread_radius))
    sums = drawn(sums_part(own, features, labels, weights, about), SUMS_SENSITIVITY, sigma)
    means = class_means(own, sums.astype(np.float64), about, sigma)
    if layout.charged_radii:
        measure(above_band(layout, images), TAIL_GUESS)
    moments = drawn(moments_part(own, features, labels, weights, means), MOMENT_WEIGHT, sigma)
    return {"centre": centre, "sums": sums, "moments": moments} | ({"norms": np.stack(norms)} if norms else {})

"""A site's whole release of moments, mechanism by mechanism, in the order in which each may rest on the one before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.spectral.layout import TAIL_GUESS, Layout, above_band, features_of
from sfumato_common.generators.spectral.moment_layout import Float64, MomentLayout
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
    """The spectral release of images [M, S, S] or [M, S, S, 3]: `noised_moments` of their low frequencies.

    The charged norms tell of the amplitude above the band too.
    """
    features = features_of(layout, images)
    above = above_band(layout, images) if layout.charged_radii else None
    return noised_moments(layout, noise_multiplier, features, labels, weights, mechanism, above)


def noised_moments(
    layout: MomentLayout,
    noise_multiplier: float,
    features: Float64,
    labels: npt.NDArray[np.int64],
    weights: Float64,
    mechanism: Mechanism,
    above: Float64 | None = None,
) -> dict[str, AnyArray]:
    """`centre` [1 + d], `sums` [K, 1 + d] and `moments` [K, d(d+1)/2] of features [M, d]; float32.

    With charged radii `norms` [2 or 3, 2] too, the third that of `above` [M, 1]. `weights` [M] are 1 over the number of
    the owner's images. All draws together cost one Gaussian release.
    """
    sigma, norms = main_noise(layout, noise_multiplier), list[npt.NDArray[np.float32]]()
    shares = layout.weights

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

    own = layout.with_radii(radius(features, layout.mean_radius), layout.spread_radius)
    centre = drawn(centre_part(own, features, weights), shares.centre_sensitivity, sigma)
    about = centre_of(own, centre.astype(np.float64), sigma)
    own = own.with_radii(own.mean_radius, radius(features - about, layout.spread_radius))
    sums = drawn(sums_part(own, features, labels, weights, about), shares.sums_sensitivity, sigma)
    means = class_means(own, sums.astype(np.float64), about, sigma)
    if layout.charged_radii and above is not None:
        measure(above, TAIL_GUESS)
    assert len(norms) == (layout.norms if layout.charged_radii else 0), "what is charged for is what is measured"
    moments = drawn(moments_part(own, features, labels, weights, means), shares.moment, sigma)
    return {"centre": centre, "sums": sums, "moments": moments} | ({"norms": np.stack(norms)} if norms else {})

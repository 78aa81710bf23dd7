"""What a fitted spectral model can be, by public numbers: the fit keeps within it, and a site takes nothing else.

Sites encode their records with these arrays. A crafted factor could blow one direction up and hide all others, a
crafted mean lie where no image is. Eigenvalues are held in units of the public power law, in which honest covariances
of natural images lie about 1, so that no frequency can be amplified out of its size.
"""

from __future__ import annotations

import math

import numpy as np

from sfumato_common.errors import VerificationError
from sfumato_common.generators.components import component_count
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.layout import Layout, charged_tails
from sfumato_common.generators.spectral.moment_layout import Float64, MomentLayout
from sfumato_common.generators.spectral.structured import Structured
from sfumato_common.types import Arrays

# Eigenvalues of a component's covariance whitened by the power law. Those of the phantom's and of chest radiographs lie
# between 0.01 and 100.
SMALLEST_EIGENVALUE, LARGEST_EIGENVALUE = 1e-3, 1e4
# A mean is at most this many times `clip_radius` long: noise cannot throw it farther than the widest clip reaches.
MEAN_REACH = 4.0
# Amplitude of the frequencies above the band where it is not measured, in units of the power law.
TAILS = (0.7, 1.15)
_ROUNDING = 1e-3  # float32, relative


def bound_means(means: Float64, radius: float) -> Float64:
    """Rows of [G, d], none longer than MEAN_REACH times the clip radius."""
    reach = MEAN_REACH * radius
    return np.asarray(means / np.maximum(1.0, np.linalg.norm(means, axis=1, keepdims=True) / reach))


def bound_covariance(layout: MomentLayout, covariance: Structured) -> Structured:
    """The covariance [d, d] itself where its eigenvalues are within the public bounds, else with those cut to them."""
    unit = np.sqrt(layout.prior)
    least, largest = covariance.scaled(1.0 / unit).extremes()
    # well within, as all honest ones are: extremes are known to a hundredth
    if least > 2.0 * SMALLEST_EIGENVALUE and largest < 0.5 * LARGEST_EIGENVALUE:
        return covariance
    values, vectors = np.linalg.eigh(covariance.matrix / np.outer(unit, unit))
    within = np.clip(values, SMALLEST_EIGENVALUE, LARGEST_EIGENVALUE)
    if bool((within == values).all()):
        return covariance
    return Structured(np.zeros_like(unit), vectors * unit[:, None], np.diag(within))


def check_spectral(plan: PublicPlan, arrays: Arrays) -> None:
    """Raise VerificationError unless arrays `spectral/...` of the right form are what an honest fit can give.

    See `check_moments`; tails are what a site can measure.
    """
    layout, tail = Layout.of(plan), arrays["spectral/tail"].astype(np.float64)
    check_moments(layout, "spectral", arrays, component_count(plan))
    lowest, highest = charged_tails() if layout.charged_radii else TAILS
    within = (tail >= lowest * (1.0 - _ROUNDING)) & (tail <= highest * (1.0 + _ROUNDING))
    _require("spectral", {"tail": bool(within.all())})


def check_moments(layout: MomentLayout, kind: str, arrays: Arrays, components: int) -> None:
    """Raise VerificationError unless arrays `<kind>/...` of the right form are what an honest fit of moments can give.

    Shares are positive and sum to 1; means are within reach; factors are symmetric, positive definite and within the
    public bounds; signals are symmetric with eigenvalues from 0 to 1, as projectors.
    """
    shares, mean, factor, signal = (
        arrays[f"{kind}/{name}"].astype(np.float64) for name in ("shares", "mean", "factor", "signal")
    )
    assert shares.shape == (components,), "the form was checked before"
    unit = np.sqrt(layout.prior)
    sound = {
        "shares": bool((shares > 0).all()) and abs(float(shares.sum()) - 1.0) <= _ROUNDING,
        "mean": float(np.linalg.norm(mean, axis=1).max()) <= MEAN_REACH * layout.mean_radius * (1.0 + _ROUNDING),
        "factor": _is_symmetric(factor),
        "signal": _is_symmetric(signal),
    }
    _require(kind, sound)
    for root, shown in zip(factor, signal, strict=True):
        smallest = float(np.linalg.eigvalsh(root)[0])
        whitened = np.linalg.eigvalsh(root @ root / np.outer(unit, unit))
        inside = whitened[0] >= SMALLEST_EIGENVALUE / 2.0 and whitened[-1] <= LARGEST_EIGENVALUE * 2.0
        projected = np.linalg.eigvalsh(shown)
        held = {
            "factor": smallest > 0.0 and bool(inside),
            "signal": bool(projected[0] >= -_ROUNDING and projected[-1] <= 1.0 + _ROUNDING),
        }
        _require(kind, held)


def _is_symmetric(matrices: Float64) -> bool:
    largest = math.sqrt(float((matrices**2).max()))
    return bool((np.abs(matrices - matrices.transpose(0, 2, 1)) <= _ROUNDING * largest).all())


def _require(kind: str, sound: dict[str, bool]) -> None:
    for name, holds in sound.items():
        if not holds:
            raise VerificationError(
                f"the {kind} model's '{name}' is not what an honest fit of this plan can give; do not go on with this"
                " coordinator before its operator has explained it"
            )

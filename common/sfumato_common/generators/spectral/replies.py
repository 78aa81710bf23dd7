"""What an honest spectral release can be: see `generators.replies`; every part counts the same patients."""

from __future__ import annotations

import math

import numpy as np

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.replies import check_counts, check_norms, most_patients, noise_peak, require
from sfumato_common.generators.spectral.denoise import symmetric
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.moment_layout import Float64, MomentLayout
from sfumato_common.generators.spectral.sums import NORM_WEIGHT, main_noise
from sfumato_common.types import Arrays


def check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    """Raise VerificationError for noised sums that patients of `site` cannot have given."""
    check_moments_reply(Layout.of(plan), plan.spectral.noise_multiplier, most_patients(plan, site), arrays)


def check_moments_reply(layout: MomentLayout, noise_multiplier: float, patients: float, arrays: Arrays) -> None:
    """Raise VerificationError for noised moments that so many patients cannot have given."""
    sigma, shares = main_noise(layout, noise_multiplier), layout.weights
    parts = {name: value.astype(np.float64) for name, value in arrays.items()}
    total = check_counts(parts["centre"][:1], shares.total, sigma, patients)
    counts = check_counts(parts["sums"][:, 0], shares.count, sigma, patients)
    in_sums = parts["sums"][:, 0] / shares.count, sigma / shares.count
    _check_same(parts["centre"][0] / shares.total, sigma / shares.total, *in_sums)
    check_norms(parts["centre"][None, 1:], shares.centre, total, sigma)
    check_norms(parts["sums"][:, 1:], shares.sum, counts, sigma)
    check_norms(parts["moments"], shares.moment, counts, sigma)
    _check_moments(symmetric(parts["moments"], layout.features), shares.moment * counts, sigma)
    if layout.charged_radii:
        weight, own = NORM_WEIGHT / math.sqrt(2.0), noise_multiplier
        for count, logarithms in parts["norms"]:
            measured = check_counts(np.array([count]), weight, own, patients)
            _check_same(count / weight, own / weight, *in_sums)
            check_norms(np.array([[logarithms]]), weight, measured, own)


def _check_same(patients: float, noise: float, class_counts: Float64, class_noise: float) -> None:
    """A count with noise of that deviation is that of all classes together."""
    apart = math.hypot(noise, math.sqrt(len(class_counts)) * class_noise)
    require(abs(patients - class_counts.sum()) <= noise_peak(apart), "the number of patients")


def _check_moments(moments: Float64, weighted: Float64, sigma: float) -> None:
    """Second moments [K, d, d] have no negative eigenvalue, and patients in a unit ball leave this trace, weighted."""
    size = moments.shape[1]
    # a Gaussian symmetric matrix: entries of variance sigma^2 on the diagonal, half of that beside it
    least = np.linalg.eigvalsh(moments)[:, 0].min()
    require(least >= -(math.sqrt(2.0 * size) * sigma + noise_peak(sigma, len(moments))), "a second moment")
    traces = np.trace(moments, axis1=1, axis2=2)
    most = weighted + noise_peak(sigma * math.sqrt(size), len(moments))
    require(bool((traces <= most).all()), "a second moment")

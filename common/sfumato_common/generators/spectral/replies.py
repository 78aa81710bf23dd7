"""What an honest spectral release can be: see `generators.replies`; every part counts the same patients."""

from __future__ import annotations

import math

import numpy as np

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.replies import check_counts, check_norms, most_patients, noise_peak, require
from sfumato_common.generators.spectral.denoise import symmetric
from sfumato_common.generators.spectral.layout import (
    CENTRE_WEIGHT,
    COUNT_WEIGHT,
    MOMENT_WEIGHT,
    NORM_WEIGHT,
    SUM_WEIGHT,
    TOTAL_WEIGHT,
    Float64,
    Layout,
    main_noise,
)
from sfumato_common.types import Arrays


def check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    """Raise VerificationError for noised sums that patients of `site` cannot have given."""
    layout, patients = Layout.of(plan), most_patients(plan, site)
    sigma = main_noise(layout, plan.spectral.noise_multiplier)
    parts = {name: value.astype(np.float64) for name, value in arrays.items()}
    total = check_counts(parts["centre"][:1], TOTAL_WEIGHT, sigma, patients)
    counts = check_counts(parts["sums"][:, 0], COUNT_WEIGHT, sigma, patients)
    _check_same(parts["centre"][0] / TOTAL_WEIGHT, sigma / TOTAL_WEIGHT, parts["sums"][:, 0], sigma)
    check_norms(parts["centre"][None, 1:], CENTRE_WEIGHT, total, sigma)
    check_norms(parts["sums"][:, 1:], SUM_WEIGHT, counts, sigma)
    check_norms(parts["moments"], MOMENT_WEIGHT, counts, sigma)
    _check_moments(symmetric(parts["moments"], layout.features), counts, sigma)
    if layout.charged_radii:
        weight, own = NORM_WEIGHT / math.sqrt(2.0), plan.spectral.noise_multiplier
        for count, logarithms in parts["norms"]:
            measured = check_counts(np.array([count]), weight, own, patients)
            _check_same(count / weight, own / weight, parts["sums"][:, 0], sigma)
            check_norms(np.array([[logarithms]]), weight, measured, own)


def _check_same(patients: float, noise: float, class_counts: Float64, sigma: float) -> None:
    """A count with noise of that deviation is that of all classes together."""
    apart = math.hypot(noise, math.sqrt(len(class_counts)) * sigma / COUNT_WEIGHT)
    require(abs(patients - class_counts.sum() / COUNT_WEIGHT) <= noise_peak(apart), "the number of patients")


def _check_moments(moments: Float64, counts: Float64, sigma: float) -> None:
    """Second moments [K, d, d] have no negative eigenvalue, and patients in a ball of radius 1 leave this trace."""
    size = moments.shape[1]
    # a Gaussian symmetric matrix: entries of variance sigma^2 on the diagonal, half of that beside it
    least = np.linalg.eigvalsh(moments)[:, 0].min()
    require(least >= -(math.sqrt(2.0 * size) * sigma + noise_peak(sigma, len(moments))), "a second moment")
    traces = np.trace(moments, axis1=1, axis2=2)
    most = MOMENT_WEIGHT * counts + noise_peak(sigma * math.sqrt(size), len(moments))
    require(bool((traces <= most).all()), "a second moment")

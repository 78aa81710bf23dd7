"""Spectral stage at the site: two noised sums in one message (see sfumato_common.models.spectral for the mechanism)."""

from __future__ import annotations

import numpy as np

from sfumato_client.training import StageJob
from sfumato_common.models.spectral import (
    MOMENT_WEIGHT,
    SUMS_SENSITIVITY,
    Layout,
    class_means,
    features_of,
    moments_part,
    sums_part,
)
from sfumato_common.privacy.meter import Noised


def release_moments(job: StageJob) -> Noised:
    """The site's noised class counts and sums, and noised second moments about the means that those give, float32."""
    layout, sigma = Layout.of(job.plan), job.plan.spectral.noise_multiplier
    images, labels, owners = job.cohort.everything()
    weights = 1.0 / np.bincount(owners)[owners]
    features = features_of(layout, images)
    # float32 before anything is derived: the means below must be those the coordinator can compute from the message
    sums = job.meter.gaussian(
        sums_part(layout, features, labels, weights), SUMS_SENSITIVITY, sigma / SUMS_SENSITIVITY
    ).astype(np.float32)
    _, means = class_means(layout, sums.astype(np.float64), sigma)
    moments = job.meter.gaussian(
        moments_part(layout, features, labels, weights, means), MOMENT_WEIGHT, sigma / MOMENT_WEIGHT
    ).astype(np.float32)
    return job.meter.sealed({"sums": sums, "moments": moments})

"""Spectral stage at the site: noised sums in one message (see sfumato_common.models.spectral for the mechanism)."""

from __future__ import annotations

import numpy as np

from sfumato_client.training import StageJob
from sfumato_common.models.spectral import Layout
from sfumato_common.models.spectral_release import noised_release
from sfumato_common.privacy.meter import Noised


def release_moments(job: StageJob) -> Noised:
    """The site's noised class counts and sums, and noised second moments about the means that those give, float32."""
    layout, sigma = Layout.of(job.plan), job.plan.spectral.noise_multiplier
    images, labels, owners = job.cohort.everything()
    weights = 1.0 / np.bincount(owners)[owners]
    return job.meter.sealed(noised_release(layout, sigma, images, labels, weights, job.meter.gaussian))

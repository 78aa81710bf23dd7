"""Spectral stage at the site: noised sums in one message (mechanism: generators.spectral.layout)."""

from __future__ import annotations

from sfumato_client.training import StageJob
from sfumato_common.generators.spectral.layout import Layout, above_band, features_of
from sfumato_common.generators.spectral.phases import moments_summand
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.settings import SpectralStage
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.generators.summed import Phase
from sfumato_common.types import Arrays


def release_moments(job: StageJob[SpectralStage]) -> Arrays:
    """The site's noised class counts and sums, and noised second moments about the means that those give, float32."""
    layout, sigma = Layout.of(job.plan), job.stage.noise_multiplier
    images, labels, patient_index = job.cohort.everything()
    weights = patient_weights(patient_index)
    return noised_release(layout, sigma, images, labels, weights, job.recorder.gaussian)


def moments_of_sum(job: StageJob[SpectralStage], phase: Phase, earlier: Arrays, noise_multiplier: float) -> Arrays:
    """This site's part of a phase of the summed release, without noise."""
    layout = Layout.of(job.plan)
    images, labels, patient_index = job.cohort.everything()
    weights, features = patient_weights(patient_index), features_of(layout, images)
    above = above_band(layout, images) if layout.charged_radii else None
    return moments_summand(layout, phase, noise_multiplier, features, labels, weights, earlier, above)

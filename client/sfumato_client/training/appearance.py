"""Appearance stage at the site: noised sums in one message (mechanism: generators.spectral.release)."""

from __future__ import annotations

from sfumato_client.training import StageJob
from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.appearance.features import features_of
from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.generators.spectral.phases import moments_summand
from sfumato_common.generators.spectral.release import noised_moments
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.generators.summed import Phase
from sfumato_common.types import Arrays


def release_appearance(job: StageJob[AppearanceStage]) -> Arrays:
    """The site's noised class counts and sums, and noised second moments about the means that those give, float32."""
    layout = AppearanceLayout.of(job.plan)
    images, labels, patient_index = job.cohort.everything()
    weights = patient_weights(patient_index)
    features = features_of(layout.map, images)
    return noised_moments(layout, job.stage.noise_multiplier, features, labels, weights, job.recorder.gaussian)


def moments_of_sum(job: StageJob[AppearanceStage], phase: Phase, earlier: Arrays, noise_multiplier: float) -> Arrays:
    """This site's part of a phase of the summed release, without noise."""
    layout = AppearanceLayout.of(job.plan)
    images, labels, patient_index = job.cohort.everything()
    weights, features = patient_weights(patient_index), features_of(layout.map, images)
    return moments_summand(layout, phase, noise_multiplier, features, labels, weights, earlier)

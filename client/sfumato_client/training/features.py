"""Features stage at the site: noised moments of embeddings in one message (mechanism: generators.spectral.release)."""

from __future__ import annotations

from sfumato_client.training import StageJob
from sfumato_common.exchanges.feature_space import FeatureLayout, FeatureSpace
from sfumato_common.exchanges.features import FeaturesStage
from sfumato_common.generators.spectral.phases import moments_summand
from sfumato_common.generators.spectral.release import noised_moments
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.generators.summed import Phase
from sfumato_common.types import Arrays


def release_features(job: StageJob[FeaturesStage]) -> Arrays:
    """The site's noised class counts and sums, and noised second moments about the means that those give, float32."""
    space = FeatureSpace.of(job.plan, job.encoders[job.stage.encoder])
    images, labels, patient_index = job.cohort.everything()
    weights, vectors = patient_weights(patient_index), space.vectors(images)
    layout, sigma = FeatureLayout.of(job.plan), job.stage.noise_multiplier
    return noised_moments(layout, sigma, vectors, labels, weights, job.recorder.gaussian)


def moments_of_sum(job: StageJob[FeaturesStage], phase: Phase, earlier: Arrays, noise_multiplier: float) -> Arrays:
    """This site's part of a phase of the summed release, without noise."""
    layout, space = FeatureLayout.of(job.plan), FeatureSpace.of(job.plan, job.encoders[job.stage.encoder])
    images, labels, patient_index = job.cohort.everything()
    weights, features = patient_weights(patient_index), space.vectors(images)
    return moments_summand(layout, phase, noise_multiplier, features, labels, weights, earlier)

"""Codec stage at the site: noised sums of a public network's codes in one message (mechanism: spectral.release)."""

from __future__ import annotations

from sfumato_client.training import StageJob
from sfumato_common.generators.codec.layout import CodecLayout
from sfumato_common.generators.codec.settings import CodecStage
from sfumato_common.generators.codec.space import features_of, released_codec
from sfumato_common.generators.spectral.phases import moments_summand
from sfumato_common.generators.spectral.release import noised_moments
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.generators.summed import Phase
from sfumato_common.types import Arrays


def release_codes(job: StageJob[CodecStage]) -> Arrays:
    """The site's noised class counts and sums, and noised second moments about the means that those give, float32."""
    layout, codec = CodecLayout.of(job.plan), released_codec(job.plan, job.inbound)
    images, labels, patient_index = job.cohort.everything()
    weights = patient_weights(patient_index)
    features = features_of(layout, codec, images)
    return noised_moments(layout, job.stage.noise_multiplier, features, labels, weights, job.recorder.gaussian)


def moments_of_sum(job: StageJob[CodecStage], phase: Phase, earlier: Arrays, noise_multiplier: float) -> Arrays:
    """This site's part of a phase of the summed release, without noise."""
    layout, codec = CodecLayout.of(job.plan), released_codec(job.plan, job.inbound)
    images, labels, patient_index = job.cohort.everything()
    weights, features = patient_weights(patient_index), features_of(layout, codec, images)
    return moments_summand(layout, phase, noise_multiplier, features, labels, weights, earlier)

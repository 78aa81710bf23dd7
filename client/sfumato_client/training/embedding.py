"""Embedding stage at the site: one noised sum of features (mechanism: generators.embedding.features)."""

from __future__ import annotations

import numpy as np

from sfumato_client.training import StageJob
from sfumato_common.generators.embedding.features import SENSITIVITY, embedding_sums
from sfumato_common.generators.embedding.settings import EmbeddingStage
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.generators.summed import Float64, Phase
from sfumato_common.types import Arrays


def release_embedding(job: StageJob[EmbeddingStage]) -> Arrays:
    """The site's noised class counts and sums of features, float32 [K, 1 + D]."""
    noised = job.recorder.gaussian(_sums(job), SENSITIVITY, job.stage.noise_multiplier)
    return {"sums": noised.astype(np.float32)}


def sums_of_sum(job: StageJob[EmbeddingStage], phase: Phase, earlier: Arrays, noise_multiplier: float) -> Arrays:
    """This site's part of the summed release, without noise."""
    return {"sums": _sums(job)}


def _sums(job: StageJob[EmbeddingStage]) -> Float64:
    images, labels, patient_index = job.cohort.everything()
    weights = patient_weights(patient_index)
    encoder = job.encoders.get(job.stage.encoder or "")
    return embedding_sums(job.plan, job.site, job.inbound, images, labels, weights, encoder)

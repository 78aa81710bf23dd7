"""Embedding stage at the site: one noised sum of features (see sfumato_common.models.embedding for the mechanism)."""

from __future__ import annotations

import numpy as np

from sfumato_client.training import StageJob
from sfumato_common.config.stages import EmbeddingStage
from sfumato_common.models.embedding import SENSITIVITY, embedding_sums
from sfumato_common.privacy.meter import Noised


def release_embedding(job: StageJob) -> Noised:
    """The site's noised class counts and sums of features, float32 [K, 1 + D]."""
    stage = job.plan.stage("embedding")
    assert isinstance(stage, EmbeddingStage)
    images, labels, owners = job.cohort.everything()
    weights = 1.0 / np.bincount(owners)[owners]
    sums = embedding_sums(job.plan, job.site, job.inbound, images, labels, weights)
    noised = job.meter.gaussian(sums, SENSITIVITY, stage.noise_multiplier)
    return job.meter.sealed({"sums": noised.astype(np.float32)})

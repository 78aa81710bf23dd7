"""Class-mean stage at the site: one noised sum of pixels a class."""

from __future__ import annotations

import math

import numpy as np
from sfumato_common.generators.class_mean.settings import ClassMeanStage

from sfumato_client.training import StageJob
from sfumato_common.types import Arrays, to_unit_range

COUNT_WEIGHT = 0.1
SUM_WEIGHT = math.sqrt(1.0 - COUNT_WEIGHT**2)


def release_sums(job: StageJob[ClassMeanStage]) -> Arrays:
    """Noised sums [K, 1 + D] of [w0, w1 x / |x|]: a patient adds the mean over its images, of norm 1 at most."""
    images, labels, patient_index = job.cohort.everything()
    weights = 1.0 / np.bincount(patient_index)[patient_index]
    pixels = to_unit_range(images).reshape(len(images), -1).astype(np.float64)
    # no pixel is beyond 1, so that no image's norm is beyond the root of their number: nothing needs a clip
    vectors = np.column_stack([np.full(len(pixels), COUNT_WEIGHT), SUM_WEIGHT * pixels / math.sqrt(pixels.shape[1])])
    sums = np.stack([weights[labels == k] @ vectors[labels == k] for k in range(len(job.plan.labels))])
    noised = job.recorder.gaussian(sums, 1.0, job.stage.noise_multiplier)
    return {"sums": noised.astype(np.float32)}

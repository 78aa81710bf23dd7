"""A noisy histogram of patients' scores, from which a figure can be read without looking at the patients again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfumato_common.privacy.meter import Meter
from sfumato_common.types import FloatArray


def noisy_score_histogram(
    scores: FloatArray,
    labels: npt.NDArray[np.int64],
    bins: int,
    classes: int,
    noise_multiplier: float,
    meter: Meter,
) -> npt.NDArray[np.float32]:
    """Noisy counts [classes, bins] of patients' classifier scores in [0, 1]; AUC is later read off them.

    `scores` and `labels` are [P], one entry a patient (the caller reduces a patient's images to one score), so adding
    or removing a patient changes one cell by one: L2 sensitivity 1. A score that is not a number counts as 0.
    Raises ValueError when the shapes differ or a label is out of range.
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError("scores and labels must be [P], one entry a patient")
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError("a label is outside the plan's classes")
    clipped = np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)
    column = np.minimum((clipped * bins).astype(np.int64), bins - 1)
    counts = np.zeros((classes, bins), dtype=np.float64)
    np.add.at(counts, (labels, column), 1.0)
    return meter.gaussian(counts, 1.0, noise_multiplier).astype(np.float32)

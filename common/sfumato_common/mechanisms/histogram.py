"""A noisy histogram of patients' scores, from which a figure can be read without looking at the patients again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.types import FloatArray


def patient_scores(
    scores: FloatArray, labels: npt.NDArray[np.int64], patient_index: npt.NDArray[np.int64], patients: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Mean score [P] and label [P] of every patient from those of images [N] owned by patients 0 .. P - 1.

    A patient with images of several labels has the largest (any fixed rule would do).
    """
    mean = np.bincount(patient_index, weights=scores, minlength=patients) / np.maximum(
        np.bincount(patient_index, minlength=patients), 1
    )
    label = np.zeros(patients, dtype=np.int64)
    np.maximum.at(label, patient_index, labels)
    return mean, label


def score_counts(scores: FloatArray, labels: npt.NDArray[np.int64], bins: int, classes: int) -> npt.NDArray[np.float64]:
    """Counts [classes, bins] of patients' classifier scores in [0, 1], without noise: nothing that may leave.

    `scores` and `labels` are [P], one entry a patient, so adding or removing a patient changes one cell by one: L2
    sensitivity 1, and sqrt(C) for C such histograms of the same patients. A score that is not a number counts as 0.
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
    return counts


def noisy_score_histogram(
    scores: FloatArray,
    labels: npt.NDArray[np.int64],
    bins: int,
    classes: int,
    noise_multiplier: float,
    recorder: NoiseRecorder,
) -> npt.NDArray[np.float32]:
    """`score_counts` as they may leave, [classes, bins] float32; AUC is later read off them."""
    return recorder.gaussian(score_counts(scores, labels, bins, classes), 1.0, noise_multiplier).astype(np.float32)

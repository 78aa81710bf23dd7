"""The utility figure (TSTR): a classifier trained on synthetic images, scored on this site's holdout patients.

What leaves is a noisy histogram: each holdout patient adds one count to one cell (its label, its mean score), so the
L2 sensitivity under add/remove of a patient is 1 (Gaussian mechanism; Dwork and Roth 2014, appendix A).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfumato_client.dataset import Cohort
from sfumato_common.generators.summed import Float64
from sfumato_common.mechanisms.histogram import noisy_score_histogram, patient_scores, score_counts
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.utility import score
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays


def score_histogram(plan: Plan, classifier: Arrays, cohort: Cohort, recorder: NoiseRecorder) -> Arrays:
    """`histogram`: noisy counts [K, bins] of holdout patients by label and mean classifier score, float32."""
    assert plan.utility is not None
    mean_score, label = _patients(plan, classifier, cohort)
    histogram = noisy_score_histogram(
        mean_score, label, plan.utility.bins, len(plan.labels), plan.utility.noise_multiplier, recorder
    )
    return {"histogram": histogram}


def score_part(plan: Plan, classifier: Arrays, cohort: Cohort) -> Float64:
    """The same counts [K, bins] without noise, float64: a site's part of a secure sum."""
    assert plan.utility is not None
    return score_counts(*_patients(plan, classifier, cohort), plan.utility.bins, len(plan.labels))


def _patients(plan: Plan, classifier: Arrays, cohort: Cohort) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Mean score [P] and label [P] of every holdout patient."""
    images, labels, patients = cohort.everything()
    return patient_scores(score(plan, classifier, images), labels, patients, cohort.patients)

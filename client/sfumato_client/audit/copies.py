"""The private gate's statistic: how many training patients a set gives back, and how far noise may carry an honest 0.

A patient is copied when an image of the patient's is nearer to a candidate than a threshold that is public: candidates
of a formal set are post-processing of what was paid for, so what they show of themselves costs nothing. Whether one
patient is copied depends on no other patient, hence a count with sensitivity 1 under adding or removing a patient.

What it cannot see: a handful of copies. That is no fault of the test, but what differential privacy means: a test which
saw one patient's copy would tell whether that patient is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from sfumato_client.audit.rules import IDENTICAL, LOW_QUANTILE
from sfumato_client.dataset import Cohort
from sfumato_common.metrics.nearest import is_flat, nearest_distances
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.types import ByteImages

# an honest set is let go in all but one case of a hundred
CONFIDENCE = 0.99


def copy_threshold(images: ByteImages, rules: GateRules) -> float:
    """The distance under which a real image counts as copied, from candidates [N, S, S(, 3)] alone; at least IDENTICAL.

    Half of them are compared with the other half: `relative_distance_floor` x the 5 % quantile of their distances.
    """
    shown = images[~is_flat(images)]
    if len(shown) < 2:
        return IDENTICAL
    usual = float(np.quantile(nearest_distances(shown[::2], shown[1::2]), LOW_QUANTILE))
    return max(IDENTICAL, rules.relative_distance_floor * usual)


def copied_patients(sets: Sequence[ByteImages], train: Cohort, rules: GateRules) -> int:
    """How many training patients have an image under the threshold of one of the `sets`; 0 for an empty cohort."""
    real, _, patient_index = train.everything()
    copied = np.zeros(len(real), dtype=np.bool_)
    if len(real) == 0:
        return 0
    for images in sets:
        shown = images[~is_flat(images)]
        if len(shown):
            # a real image's distance to the set is its own: no other patient's image has a part in it
            copied |= nearest_distances(real, shown) < copy_threshold(images, rules)
    return len(np.unique(patient_index[copied]))


def most_by_noise(noise_multiplier: float) -> float:
    """The largest noised count that is let go: what Gaussian noise adds to 0 at most, in CONFIDENCE of all cases."""
    return noise_multiplier * NormalDist().inv_cdf(CONFIDENCE)

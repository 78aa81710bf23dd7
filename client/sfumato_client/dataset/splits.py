"""Patient-disjoint splits that one patient's presence never changes for another.

The privacy guarantee compares a cohort with and without one patient (add/remove adjacency) and charges train and
hold-out patients apart. A shuffle-and-cut split would move others over the border when one patient comes or goes, so
that two neighbouring cohorts would differ in many patients and the parallel composition would not hold. Here a
patient's split is a keyed hash of the patient alone (HMAC-SHA256, RFC 2104): nobody without the site's key can predict
it. Nobody is set aside for validation: nothing is tuned on a site's patients.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import numpy as np
import numpy.typing as npt

from sfumato_client.ingest import Split
from sfumato_common.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "holdout")
TRAIN_SHARE = 0.80
NOT_GIVEN = 255  # where a split's number would stand
Numbers = npt.NDArray[np.integer[Any]]


def keyed_split(split_key: bytes, patient_id: str) -> Split:
    """Split of one patient by the site's secret key: 80 % train, 20 % holdout in expectation."""
    digest = hmac.digest(split_key, b"split\0" + patient_id.encode(), hashlib.sha256)
    position = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if position < TRAIN_SHARE else "holdout"


def assign_splits(owner: Numbers, given: Numbers, drawn: Numbers) -> Numbers:
    """Split of every patient, numbers of `SPLITS` [P], from owner and given split of every image [n], and `drawn` [P].

    A given split is a number of `SPLITS`, or NOT_GIVEN. Given splits are kept; a patient given two goes wholly to
    train, so that no holdout patient was ever trained on. Raises DataError when some images have a split and some have
    none: filling in silently would let one patient's row decide how all others are split.
    """
    missing = given == NOT_GIVEN
    if missing.all():
        return drawn
    if missing.any():
        raise DataError("some images have a split and some have none; fill the column 'split' or leave it out")
    splits = np.full(len(drawn), SPLITS.index("holdout"), drawn.dtype)
    splits[owner[given == SPLITS.index("train")]] = SPLITS.index("train")
    return splits

"""Nearest copy by thumbnails: the distance to closest record of `metrics/nearest.py`, as a membership attack.

A person's score is how near the released set comes to the person's image: soft shapes at 24 to 48 cells a side, through
mirror images, inverted polarity, brightness and small shifts. It does not see fine structure: `nearest-copy` does.
"""

from __future__ import annotations

import numpy as np

from sfumato_client.audit.attacks.base import (
    Attack,
    Indices,
    Known,
    People,
    Scores,
    no_obstacle,
    on_both,
    rows_of_chunk,
)
from sfumato_common.metrics.nearest import Floats, nearest_distances
from sfumato_common.types import ByteImages

_LEAST = 1e-3  # a distance under this is none
_PRINT_BYTES = 2**13  # of a candidate's fingerprint and its products


def _score(members: People, holdout: People, known: Known) -> Scores:
    def score(images: ByteImages, patients: Indices) -> Floats:
        del patients
        # the logarithm: copies stand out by how many times nearer they are than anything usual
        near = np.full(len(images), np.inf, np.float32)
        size = rows_of_chunk(_PRINT_BYTES, len(known.candidates))
        for at in range(0, len(known.candidates), size):
            near = np.minimum(near, nearest_distances(images, known.candidates[at : at + size]))
        return -np.log(np.maximum(near, _LEAST))

    return on_both(score)(members, holdout)


THUMBNAIL = Attack(
    "thumbnail",
    "Is a released image, seen small, nearer to a training patient's image than to strangers'?",
    no_obstacle,
    _score,
)

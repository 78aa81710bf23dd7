"""Nearest copy in fine structure (distance to closest record; Yale et al. 2019, by `fine.py` instead of pixels).

A person's score is how alike the fine structure of the person's image is to that of the candidate most like it. The
candidates that are compared finely are those whose prints are most like the person's, plain and mirrored.
Blind spots: turning, zooming and moving by more than a 16th of the side; soft shapes alone (`thumbnail` sees those).
"""

from __future__ import annotations

import numpy as np

from sfumato_client.audit.attacks import fine
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
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages

_SHORTLIST = 3  # candidates a person and handedness


def nearest_detail(people: ByteImages, candidates: ByteImages) -> tuple[Floats, Indices]:
    """How alike [N] the finest match of each of `people` [N, S, S(, 3)] is among `candidates`, and which that is."""
    own = fine.prints(people)
    middle, common = own.mean(axis=0), fine.shared(people)
    own = fine.centred(own, middle)
    best, which = np.zeros(len(people), np.float32), np.zeros(len(people), np.int64)
    for mirrored in (False, True):
        rows = _shortlist(own, candidates, middle, mirrored)
        found = fine.compared(people, candidates, rows, common, mirrored)
        at = found.argmax(axis=1)
        score = found[np.arange(len(people)), at]
        which = np.where(score > best, rows[np.arange(len(people)), at], which)
        best = np.maximum(score, best)
    return best, which


def _shortlist(own: Floats, candidates: ByteImages, middle: Floats, mirrored: bool) -> Indices:
    """The candidates [N, k] whose prints are most like each row's of `own`, a chunk of candidates at a time."""
    count = min(_SHORTLIST, len(candidates))
    scores = np.full((len(own), count), -np.inf, np.float32)
    rows = np.zeros((len(own), count), np.int64)
    size = rows_of_chunk(24 * own.shape[1] + 64 * len(own), len(candidates))
    for at in range(0, len(candidates), size):
        part = fine.centred(fine.prints(candidates[at : at + size], mirrored), middle)
        every = np.concatenate([scores, own @ part.T], axis=1)
        numbers = np.concatenate([rows, np.broadcast_to(np.arange(at, at + len(part)), (len(own), len(part)))], axis=1)
        top = np.argpartition(-every, count - 1, axis=1)[:, :count]
        scores, rows = np.take_along_axis(every, top, 1), np.take_along_axis(numbers, top, 1)
    return rows


def _score(members: People, holdout: People, known: Known) -> Scores:
    return on_both(lambda images, patients: nearest_detail(images, known.candidates)[0])(members, holdout)


NEAREST_COPY = Attack(
    "nearest-copy",
    "Does a released image repeat the fine structure, such as vessels, of a training patient's image?",
    no_obstacle,
    _score,
)

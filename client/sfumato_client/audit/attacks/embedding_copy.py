"""Nearest copy by the vectors of a given encoder: a public network that the site's policy names.

Vectors are about the mean over all people, so that a cosine tells what images have of their own. A person's score is
the largest cosine of the person's image with a candidate. No training can blind the network, and none sharpens it.
"""

from __future__ import annotations

import numpy as np

from sfumato_client.audit.attacks.base import (
    Attack,
    Indices,
    Known,
    People,
    Scores,
    candidate_chunks,
    on_both,
    rows_of_chunk,
)
from sfumato_common.metrics.features import encoded_features
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages

_SAME = 1e-5  # a distance under this is none


def largest_cosine(own: Floats, others: Floats) -> Floats:
    """The largest inner product [N] of each row of `own` [N, D] with a row of `others` [M, D], a chunk at a time."""
    best = np.full(len(own), -np.inf, np.float32)
    size = rows_of_chunk(8 * len(own), len(others))
    for at in range(0, len(others), size):
        best = np.maximum(best, (own @ others[at : at + size].T).max(axis=1))
    return best


def separation(cosines: Floats) -> Floats:
    """-log(1 - cosine) [N]: copies stand out by how many times nearer they are than anything usual."""
    return np.asarray(-np.log(np.maximum(1.0 - cosines, _SAME)), np.float32)


def unit(rows: Floats) -> Floats:
    """Rows [N, D] of length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)


def _obstacle(members: People, holdout: People, known: Known) -> str:
    del members, holdout
    return "" if known.encoder is not None else "the policy names no encoder (release.gate.encoder)"


def _score(members: People, holdout: People, known: Known) -> Scores:
    encoder = known.encoder
    assert encoder is not None, "the obstacle was asked for"

    def score(images: ByteImages, patients: Indices) -> Floats:
        del patients
        vectors = encoded_features(images, encoder)
        middle = vectors.mean(axis=0)
        own, near = unit(vectors - middle), np.full(len(images), -1.0, np.float32)
        for part in candidate_chunks(known.candidates):
            near = np.maximum(near, largest_cosine(own, unit(encoded_features(part, encoder) - middle)))
        return separation(near)

    return on_both(score)(members, holdout)


EMBEDDING_COPY = Attack(
    "embedding-copy",
    "Does a public network take a released image for one of a training patient?",
    _obstacle,
    _score,
)

"""Membership by density ratio (DOMIAS; van Breugel et al. 2023): where the release is denser than people are.

An image that is like many candidates may only be a usual one. The score therefore divides the candidates' density at a
person's image by that of people: here by nearest neighbours (Loftsgaarden and Quesenberry 1965), among candidates and
among the other patients of both sides, in thumbnails' fingerprints. Its logarithm is, up to a constant,
log(distance to the nearest other patient) - log(distance to the nearest candidate).
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
from sfumato_client.audit.attacks.embedding_copy import largest_cosine
from sfumato_common.metrics.nearest import Floats, fingerprints
from sfumato_common.types import ByteImages

_LEAST = 1e-3  # a distance under this is none: grain of a grey level or two
_FEWEST = 3


def _obstacle(members: People, holdout: People, known: Known) -> str:
    del known
    people = members.patients + holdout.patients
    return "" if people >= _FEWEST else f"the density of people needs at least {_FEWEST} of them"


def _score(members: People, holdout: People, known: Known) -> Scores:
    def score(images: ByteImages, patients: Indices) -> Floats:
        own = fingerprints(images)
        near = np.full(len(own), -1.0, np.float32)
        for part in candidate_chunks(known.candidates):
            near = np.maximum(near, largest_cosine(own, fingerprints(part)))
        return np.log(_distance(_other_patients(own, patients))) - np.log(_distance(near))

    return on_both(score)(members, holdout)


def _other_patients(own: Floats, patients: Indices) -> Floats:
    """The largest inner product [N] of each row with one of another patient."""
    best = np.full(len(own), -1.0, np.float32)
    size = rows_of_chunk(12 * len(own), len(own))
    for at in range(0, len(own), size):
        part = slice(at, at + size)
        products = own[part] @ own.T
        products[patients[part, None] == patients[None]] = -1.0
        best[part] = products.max(axis=1)
    return best


def _distance(cosines: Floats) -> Floats:
    return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * cosines, _LEAST**2)), np.float32)


DOMIAS = Attack(
    "domias",
    "Is the release denser around training patients' images than people are there?",
    _obstacle,
    _score,
)

"""Attribute inference (Fredrikson et al. 2014; control after Stadler et al. 2022): is a finding read off the release?

The outsider has a person's image without its class, and the candidates with theirs. The class is guessed by the
candidates that look like the person, the more alike the weightier. A person's score is how far the guess leans to the
true class. What a release tells of everybody with such an image is nobody's leak: only what it tells of members
beyond holdout patients counts.
"""

from __future__ import annotations

import numpy as np

from sfumato_client.audit.attacks.base import Attack, Known, People, Scores
from sfumato_common.memory import rows_at_once
from sfumato_common.metrics.nearest import Floats, fingerprints

_SHARPNESS = 50.0  # of weights exp(sharpness x cosine): a candidate .02 less alike has a third of the weight


def _obstacle(members: People, holdout: People, known: Known) -> str:
    if min(len(np.unique(side.labels)) for side in (members, holdout)) < 2:
        return "training or holdout patients have one class alone"
    return "" if len(np.unique(known.labels)) > 1 else "the candidates have one class alone: there is nothing to infer"


def _score(members: People, holdout: People, known: Known) -> Scores:
    released = fingerprints(known.candidates)
    sides = (members, holdout)
    inside, outside = (side.per_patient(_lean(side, released, known)) for side in sides)
    return inside, outside


def _lean(side: People, released: Floats, known: Known) -> Floats:
    """How far [N] the weighted vote leans to each image's true class: -1 against it, 1 for it."""
    own = fingerprints(side.images)
    lean = np.zeros(len(own), np.float32)
    size = rows_at_once(16 * len(released), len(own))
    for at in range(0, len(own), size):
        cosines = np.abs(own[at : at + size] @ released.T)
        weights = np.exp(_SHARPNESS * (cosines - cosines.max(axis=1, keepdims=True)))
        right = known.labels[None] == side.labels[at : at + size, None]
        lean[at : at + size] = 2.0 * (weights * right).sum(axis=1) / weights.sum(axis=1) - 1.0
    return lean


ATTRIBUTE = Attack(
    "attribute",
    "Does the release tell a training patient's finding better than that of a stranger with such an image?",
    _obstacle,
    _score,
)

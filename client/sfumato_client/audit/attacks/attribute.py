"""Attribute inference (Fredrikson et al. 2014; control after Stadler et al. 2022): is a finding read off the release?

The outsider has a person's image without its class, and the candidates with theirs. The class is guessed by the
candidates that look like the person, the more alike the weightier. A person's score is how far the guess leans to the
true class. What a release tells of everybody with such an image is nobody's leak: only what it tells of members
beyond holdout patients counts.
"""

from __future__ import annotations

import numpy as np

from sfumato_client.audit.attacks.base import Attack, Known, People, Scores, candidate_chunks
from sfumato_common.metrics.nearest import Floats, fingerprints

_SHARPNESS = 50.0  # of weights exp(sharpness x cosine): a candidate .02 less alike has a third of the weight


def _obstacle(members: People, holdout: People, known: Known) -> str:
    if min(len(np.unique(side.labels)) for side in (members, holdout)) < 2:
        return "training or holdout patients have one class alone"
    return "" if len(np.unique(known.labels)) > 1 else "the candidates have one class alone: there is nothing to infer"


def _score(members: People, holdout: People, known: Known) -> Scores:
    inside, outside = (side.per_patient(_lean(side, known)) for side in (members, holdout))
    return inside, outside


def _lean(side: People, known: Known) -> Floats:
    """How far [N] the weighted vote leans to each image's true class: -1 against it, 1 for it; chunk by chunk."""
    own, count = fingerprints(side.images), len(side.images)
    top, right, every = np.zeros(count, np.float32), np.zeros(count), np.zeros(count)
    at = 0
    for part in candidate_chunks(known.candidates):
        cosines = np.abs(own @ fingerprints(part).T)
        # weights are relative to the most alike so far: what was added before shrinks with it
        new = np.maximum(top, cosines.max(axis=1))
        fade, weights = np.exp(_SHARPNESS * (top - new)), np.exp(_SHARPNESS * (cosines - new[:, None]))
        same = known.labels[None, at : at + len(part)] == side.labels[:, None]
        right = right * fade + (weights * same).sum(axis=1)
        every = every * fade + weights.sum(axis=1)
        top, at = new, at + len(part)
    return np.asarray(2.0 * right / every - 1.0, np.float32)


ATTRIBUTE = Attack(
    "attribute",
    "Does the release tell a training patient's finding better than that of a stranger with such an image?",
    _obstacle,
    _score,
)

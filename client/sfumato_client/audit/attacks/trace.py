"""The tracing attack on averages (Homer et al. 2008; Dwork et al. 2015): does a release lean to this person's detail?

An average of k people keeps a k-th of what each has of its own, in every octave of detail, where a thumbnail or an eye
sees nothing. A person's score is the largest correlation with a candidate, in the octave where it is most unusual.
"""

from __future__ import annotations

import numpy as np

from sfumato_client.audit.attacks.base import Attack, Indices, Known, People, Scores, no_obstacle, on_both
from sfumato_client.audit.attacks.octaves import Common, correlations
from sfumato_common.memory import rows_at_once
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages

_PEOPLE = 256  # compared at once with a chunk of candidates


def _score(members: People, holdout: People, known: Known) -> Scores:
    def score(images: ByteImages, patients: Indices) -> Floats:
        del patients
        common, best = Common.of(images), []
        for at in range(0, len(images), _PEOPLE):
            best.append(_largest(common, images[at : at + _PEOPLE], known.candidates))
        every = np.concatenate(best)
        low, middle, high = np.quantile(every, [0.25, 0.5, 0.75], axis=0)
        return np.asarray(((every - middle) / np.maximum(high - low, 1e-6)).max(axis=1), np.float32)

    return on_both(score)(members, holdout)


def _largest(common: Common, people: ByteImages, candidates: ByteImages) -> Floats:
    """The largest correlation [N, B] of people with a candidate in each octave, a chunk of candidates at a time."""
    size = rows_at_once(32 * int(np.prod(candidates.shape[1:3])) + 256 * len(people), len(candidates))
    found = [
        correlations(common, people, candidates[at : at + size])[:, :, ::2].max(axis=1)
        for at in range(0, len(candidates), size)
    ]
    return np.asarray(np.stack(found).max(axis=0))


TRACE = Attack(
    "trace",
    "Does a released image lean to a training patient's detail, as an average of several people does?",
    no_obstacle,
    _score,
)

"""The tracing attack on averages (Homer et al. 2008; Dwork et al. 2015): does a release lean to this person's detail?

An average of k people keeps a k-th of what each has of its own, in every octave of detail, where a thumbnail or an eye
sees nothing. A person's score is the largest correlation with a candidate, in the octave where it is most unusual.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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
from sfumato_client.audit.attacks.octaves import Common, row_length
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages


def _score(members: People, holdout: People, known: Known) -> Scores:
    def score(images: ByteImages, patients: Indices) -> Floats:
        del patients
        common, length = Common.of(images), 4 * row_length(images)
        size = rows_of_chunk(length, len(images))
        every = np.concatenate(
            [
                _largest(common, common.rows(images[at : at + size]), known.candidates, length)
                for at in range(0, len(images), size)
            ]
        )
        low, middle, high = np.quantile(every, [0.25, 0.5, 0.75], axis=0)
        return np.asarray(((every - middle) / np.maximum(high - low, 1e-6)).max(axis=1), np.float32)

    return on_both(score)(members, holdout)


def _largest(common: Common, people: list[Tensor], candidates: ByteImages, length: int) -> Floats:
    """The largest correlation [N, B] of people with a candidate in each octave, a chunk of candidates at a time."""
    size = rows_of_chunk(4 * length + 8 * len(people[0]), len(candidates))
    best = torch.full((len(people[0]), len(people)), -1.0)
    for at in range(0, len(candidates), size):
        released = common.rows(candidates[at : at + size])
        here = [(own @ other.T).amax(dim=1) for own, other in zip(people, released, strict=True)]
        best = torch.maximum(best, torch.stack(here, dim=1))
    return best.numpy()


TRACE = Attack(
    "trace",
    "Does a released image lean to a training patient's detail, as an average of several people does?",
    no_obstacle,
    _score,
)

"""The learned pair attack on releases of groups (Jeon et al. 2022, section 4.3): is this person behind that image?

The attacker knows of half of the groups who is in them, and learns on those pairs of a person and a released image what
a member leaves of itself in an average. The other half is judged: members of groups that it never saw, against holdout
patients. Who is behind an image only the release knows: benches and a steward who has the grouping ask this.

A pair is described by how the two correlate in each octave of detail, over the whole image and in the best quarter of
its patches, each pixel about its mean over people and in units of its deviation. The weights are Fisher's (1936)
discriminant: the groups of one hospital are dozens, of which a network learns nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sfumato_client.audit.attacks.base import Attack, Known, People, Scores
from sfumato_client.audit.attacks.octaves import PATCHES, Common, correlations
from sfumato_common.memory import rows_at_once
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages

Weights = npt.NDArray[np.float64]
_SEED = 20220911
_FEWEST = 8  # images of groups, half of which are learnt on
_RIDGE = 1e-3


def _obstacle(members: People, holdout: People, known: Known) -> str:
    del members, holdout
    if len(known.behind) != len(known.candidates):
        return "who is behind which image is not known to it"
    groups = sum(len(patients) > 0 for patients in known.behind)
    return "" if groups >= _FEWEST else f"it learns on half of the groups, and needs {_FEWEST} images of groups"


def _score(members: People, holdout: People, known: Known) -> Scores:
    images = np.array([row for row, patients in enumerate(known.behind) if len(patients)])
    order = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(_SEED)).numpy()]
    learnt, judged = order[::2], order[1::2]
    # a person behind images of both halves is learnt on, and judged no more
    seen = np.isin(members.patient_index, np.concatenate([known.behind[row] for row in learnt]))
    if seen.all():
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    common = Common.of(np.concatenate([members.images, holdout.images]))
    taught = members.images[seen]
    pairs = correlations(common, taught, known.candidates[learnt])
    own = np.stack([np.isin(members.patient_index[seen], known.behind[row]) for row in learnt], axis=1)
    weights = discriminant(pairs.reshape(-1, pairs.shape[-1]), own.ravel())
    rest = People(members.images[~seen], members.patient_index[~seen], members.labels[~seen])
    released = known.candidates[judged]
    inside, outside = (side.per_patient(_best(common, side.images, released, weights)) for side in (rest, holdout))
    return inside, outside


def discriminant(rows: Floats, own: npt.NDArray[np.bool_]) -> Weights:
    """Fisher's discriminant [F] of rows [N, F] that are a person's own group's, and of others."""
    means = [rows[own].mean(axis=0, dtype=np.float64), rows[~own].mean(axis=0, dtype=np.float64)]
    within = np.cov(rows[own].T.astype(np.float64)) + np.cov(rows[~own].T.astype(np.float64))
    within += _RIDGE * float(np.trace(within)) / len(within) * np.eye(len(within))
    return np.asarray(np.linalg.solve(within, means[0] - means[1]))


def _best(common: Common, people: ByteImages, released: ByteImages, weights: Weights) -> Floats:
    """The highest discriminant [N] of each image with a released one, a chunk of people at a time."""
    size = rows_at_once(4 * len(released) * (PATCHES**2 * 4 + len(weights)), len(people))
    parts = [
        (correlations(common, people[at : at + size], released) @ weights).max(axis=1)
        for at in range(0, len(people), size)
    ]
    return np.concatenate(parts).astype(np.float32)


LEARNED_PAIRS = Attack(
    "learned-pairs",
    "Do those who know who is behind half of the groups' images find out who is behind the others?",
    _obstacle,
    _score,
)

"""The learned pair attack on releases of groups (Jeon et al. 2022, section 4.3): is this person behind that image?

The attacker knows of half of the groups who is in them, and learns on those pairs of a person and a released image what
a member leaves of itself in an average. The other half is judged: members of groups that it never saw, against holdout
patients. Who is behind an image only the release knows: benches and a steward who has the grouping ask this.

A pair is described by how the two correlate in each octave of detail, over the whole image and in the best quarter of
its patches, each pixel about its mean over people and in units of its deviation. The weights are Fisher's (1936)
discriminant: the groups of one hospital are dozens, of which a network learns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from sfumato_client.audit.attacks.base import Attack, Indices, Known, People, Scores, rows_of_chunk
from sfumato_client.audit.attacks.octaves import PATCHES, Common, correlations
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
    learnt, judged = halves(known.behind)
    if min(len(learnt), len(judged)) >= _FEWEST // 2:
        return ""
    return f"it learns on half of the groups: {_FEWEST} images of groups, half of them of others, are not there"


def halves(behind: Sequence[Indices]) -> tuple[Indices, Indices]:
    """Rows of images to learn on, and of images to judge by, that share no patient; images of both halves are neither.

    Patients behind the same images are one block. Blocks are taken in an order in which those that share an image, as
    the ends of a walk do, follow one another, so that few images have patients of both halves.
    """
    images_of: dict[int, list[int]] = {}
    for row, patients in enumerate(behind):
        for patient in np.unique(patients).tolist():
            images_of.setdefault(patient, []).append(row)
    blocks = list(dict.fromkeys(map(tuple, images_of.values())))
    learnt = {block for block in _in_order(blocks)[: len(blocks) // 2]}
    sides: list[set[bool]] = [set() for _ in behind]
    for block in blocks:
        for row in block:
            sides[row].add(block in learnt)
    return tuple(np.flatnonzero([found == {side} for found in sides]) for side in (True, False))  # type: ignore[return-value]


def _in_order(blocks: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Blocks at random, but each followed by those it shares images with."""
    shuffled = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(_SEED)).tolist()
    at: dict[int, list[int]] = {}
    for number in shuffled:
        for row in blocks[number]:
            at.setdefault(row, []).append(number)
    seen = dict[int, None]()
    for first in shuffled:
        waiting = [first]
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen[number] = None
                waiting += [other for row in blocks[number] for other in at[row] if other not in seen]
    return [blocks[number] for number in seen]


def _score(members: People, holdout: People, known: Known) -> Scores:
    learnt, judged = halves(known.behind)
    seen, asked = (
        np.isin(members.patient_index, np.concatenate([known.behind[row] for row in rows])) for rows in (learnt, judged)
    )
    common = Common.of(np.concatenate([members.images, holdout.images]))
    pairs = correlations(common, members.images[seen], known.candidates[learnt])
    own = np.stack([np.isin(members.patient_index[seen], known.behind[row]) for row in learnt], axis=1)
    weights = discriminant(pairs.reshape(-1, pairs.shape[-1]), own.ravel())
    rest = People(members.images[asked], members.patient_index[asked], members.labels[asked])
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
    size = rows_of_chunk(4 * len(released) * (PATCHES**2 * 4 + len(weights)), len(people))
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

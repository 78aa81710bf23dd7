"""Linear walks between the mean codes of two groups: the baseline of PLAN (Pennisi et al. 2023), and where it starts.

Each end is the mean code of at least k patients of one label (Newton et al. 2005), so no end is the code of a record.
The ends are left out: their images are the k-same images of their groups, which another item may release. Each group is
the end of as few walks as the number of images allows. An image stands behind two groups, and all points of a walk are
releases of the same two: never "k x points". Guarantee level: syntactic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.groups import apportion, groups_of, label_shares, require_k
from sfumato_client.anonymise.inversion import drawn_images, space_of
from sfumato_client.anonymise.patients import averages_of, patients_of
from sfumato_common.errors import DataError, ReleaseRefused
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.study.release import GuaranteeLevel, LinearWalk
from sfumato_common.types import ByteImages

_SMALLEST_SHARE = 1e-9  # a label that noise counted as empty, where no other can give a walk

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Walks:
    """`ends` [W, 2, D], `positions` [W, T] strictly between 0 and 1, and `released` [W, T]: what is shown.

    `labels` and `components` are int64 [W]; `patients` is the least number of patients behind a walk.
    """

    ends: Tensor
    positions: Tensor
    released: Tensor
    labels: Tensor
    components: Tensor
    patients: int

    def __post_init__(self) -> None:
        inside = (self.positions > 0) & (self.positions < 1)
        if not bool(inside.all()):
            raise ReleaseRefused("an end of a walk is the mean of a group: it is never one of its images")

    def linear(self) -> Tensor:
        """The points [W, T, D] of straight walks."""
        first, last = self.ends[:, :1], self.ends[:, 1:]
        return first + self.positions[:, :, None] * (last - first)

    def some(self, rows: Tensor) -> Walks:
        """The walks `rows`."""
        ends, positions, released = self.ends[rows], self.positions[rows], self.released[rows]
        return Walks(ends, positions, released, self.labels[rows], self.components[rows], self.patients)

    def components_of_points(self) -> Tensor:
        """Components [W x T], walk by walk."""
        return self.components.repeat_interleave(self.positions.shape[1])

    def released_points(self) -> Tensor:
        """Which of the W x T points are released: their places, in order."""
        return self.released.flatten().nonzero()[:, 0]


def linear_walk(job: Job[LinearWalk]) -> CandidateSet:
    """`images` images on straight walks. Raises DataError when no label has two groups, and what `groups_of` raises."""
    walks = walks_of(job)
    rows = walks.released_points()
    images = drawn_images(job, space_of(job), walks.linear().flatten(0, 1)[rows], walks.components_of_points()[rows])
    return candidates_of(job, walks, images, "syntactic" if job.plan.private else "heuristic")


def walks_of(job: Job[LinearWalk]) -> Walks:
    """The walks of a `linear-walk` or `plan-walk` item: under one secret stream, the same ones for both.

    Raises DataError when no label has two groups, and what `groups_of` raises.
    """
    item = job.item
    patients = patients_of(job)
    groups = groups_of(job)
    sizes = np.array([len(np.unique(group.members)) for group in groups])
    require_k(int(sizes.min()), item.k)
    labels = np.array([group.label for group in groups], dtype=np.int64)
    pairs, positions, released = layout(labels, label_shares(job), item.images, item.points, job.streams.secret)
    means = averages_of(patients, [torch.from_numpy(group.members) for group in groups])
    components = means.components[pairs]
    assert bool((components[:, 0] == components[:, 1]).all()), "a walk joins two groups of one label"
    ours, least = torch.from_numpy(labels)[pairs[:, 0]], int(sizes[pairs.numpy()].sum(axis=1).min())
    return Walks(means.codes[pairs], positions, released, ours, components[:, 0], least)


def candidates_of(job: Job[LinearWalk], walks: Walks, images: ByteImages, guarantee: GuaranteeLevel) -> CandidateSet:
    """The images of the points that `walks.released_points` names, as candidates of the job's item."""
    labels = walks.labels.repeat_interleave(walks.positions.shape[1])[walks.released_points()]
    return CandidateSet(job.item.method, job.item.model, guarantee, images, labels.numpy(), walks.patients)


def layout(
    labels: Counts, shares: npt.NDArray[np.float64], images: int, points: int, secret: SecretStream
) -> tuple[Tensor, Tensor, Tensor]:
    """Which groups (labels [G]) are joined, and where: pairs int64 [W, 2], positions [W, T], released bool [W, T].

    Labels with one group or none give their part of `shares` [K] to the others; points beyond a label's part of
    `images` are dropped at random. Raises DataError when no label has two groups.
    """
    able = np.bincount(labels, minlength=len(shares)) >= 2
    if not able.any():
        raise DataError(
            "a walk joins two groups of one label, and no label has two at this site: ask for smaller groups, or for"
            " another method"
        )
    weights = np.where(able, np.maximum(shares, _SMALLEST_SHARE), 0.0)
    counts = apportion(images, weights / weights.sum())
    parts = []
    for label in np.flatnonzero(counts):
        walks = -(-int(counts[label]) // points)
        pairs, positions = _pairs(torch.from_numpy(np.flatnonzero(labels == label)), walks, points, secret)
        released = torch.zeros(walks * points, dtype=torch.bool)
        released[torch.from_numpy(secret.permutation(walks * points))[: counts[label]]] = True
        parts.append((pairs, positions, released.view(walks, points)))
    pairs, positions, released = (torch.cat(part) for part in zip(*parts, strict=True))
    return pairs, positions, released


def _pairs(groups: Tensor, walks: int, points: int, secret: SecretStream) -> tuple[Tensor, Tensor]:
    """Pairs [W, 2] of `groups` [G], and positions [W, T].

    Groups stand in a random ring and are joined to the next, then to the one after that, and so on: all ends are used
    as often before one is used again, and no pair comes twice before all came once. Walks that share a pair have their
    points between each other's.
    """
    ring, count = groups[torch.from_numpy(secret.permutation(len(groups)))], len(groups)
    possible = count * (count - 1) // 2
    number = torch.arange(walks)
    turn, pair = number // possible, number % possible
    first, last = ring[pair % count], ring[(pair + pair // count + 1) % count]
    turns = (walks - 1 - pair) // possible + 1  # walks on the same pair
    steps = turn[:, None] + turns[:, None] * torch.arange(points) + 1
    return torch.stack([first, last], dim=1), steps / (turns * points + 1)[:, None]

"""Linear walks between the mean codes of two groups: the baseline of PLAN (Pennisi et al. 2023), and where it starts.

Each end is the mean code of at least k patients of one label (Newton et al. 2005), so no end is the code of a record.
The ends are left out: their images are the k-same images of their groups, which another item may release. Each group is
the end of as few walks as the number of images allows. An image stands behind two groups, and all points of a walk are
releases of the same two: never "k x points". Guarantee level: syntactic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.groups import apportion, groups_of, label_shares, require_k
from sfumato_client.anonymise.influence import (
    allowed_moves,
    averages_without,
    draw_restrained,
    noise_of,
    with_each_left_out,
)
from sfumato_client.anonymise.inversion import space_of
from sfumato_client.anonymise.patients import averages_of, patients_of
from sfumato_common.errors import DataError, ReleaseRefused
from sfumato_common.latent.space import LatentSpace, Noise
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.study.release import LinearWalk
from sfumato_common.types import ByteImages

_SMALLEST_SHARE = 1e-9  # a label that noise counted as empty, where no other can give a walk

Counts = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Walks:
    """`ends` [W, 2, D], `positions` [W, T] strictly between 0 and 1, and `released` [W, T]: what is shown.

    `labels` and `components` are int64 [W]; `patients` is the least number of patients behind a walk, and `behind`
    which ones are at either end of each, where they are patients of a cohort.
    """

    ends: Tensor
    positions: Tensor
    released: Tensor
    labels: Tensor
    components: Tensor
    patients: int
    behind: Sequence[tuple[Indices, Indices]] = ()

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
        behind = [self.behind[row] for row in rows.tolist()] if self.behind else ()
        return Walks(ends, positions, released, self.labels[rows], self.components[rows], self.patients, behind)

    def components_of_points(self) -> Tensor:
        """Components [W x T], walk by walk."""
        return self.components.repeat_interleave(self.positions.shape[1])

    def released_points(self) -> Tensor:
        """Which of the W x T points are released: their places, in order."""
        return self.released.flatten().nonzero()[:, 0]


def linear_walk(job: Job[LinearWalk]) -> CandidateSet:
    """`images` images on straight walks.

    Raises DataError when no label has two groups, ReleaseRefused where an image hangs on one patient, and what
    `groups_of` raises.
    """
    space, walks = space_of(job), walks_of(job)
    device = space.device
    noise = noise_of(space, walks.components_of_points()[walks.released_points()].to(device), job.streams.published)
    images = restrained_points(job, space, walks, walks.linear(), noise)
    return candidates_of(job, walks, images)


def restrained_points(
    job: Job[LinearWalk], space: LatentSpace, walks: Walks, points: Tensor, noise: Noise
) -> ByteImages:
    """Images [N, S, S(, 3)] of the released ones of `points` [W, T, D] with noise [N], as far as patients allow.

    Without a patient the mean of its group is another, and the point lies as much nearer to that as it lay to the
    mean. What bent the walk away from the straight line is taken as it is.
    """
    patients, straight, images = patients_of(job), walks.linear(), []
    for number, place in enumerate(walks.released_points().tolist()):
        walk, step = divmod(place, walks.positions.shape[1])
        position, shifts, allowed = float(walks.positions[walk, step]), [torch.zeros(1, straight.shape[2])], []
        parts: list[npt.NDArray[np.float32]] = []
        for weight, members in zip((1.0 - position, position), walks.behind[walk], strict=True):
            means = averages_of(patients, with_each_left_out(members)).codes
            shifts.append(weight * (means[1:] - means[:1]))
            allowed.append(allowed_moves(job.cohort, members))
            parts.append(np.float32(weight) * averages_without(job.cohort, members))
        shift, own = torch.cat(shifts), noise.at(torch.tensor([number]))
        plain, made = straight[walk, step] + shift, points[walk, step].cpu() + shift
        component, bits = walks.components[walk : walk + 1], job.plan.image.bits
        whole = parts[0][:1] + parts[1][:1]
        averages = np.concatenate([whole, *(whole + part[1:] - part[:1] for part in parts)])
        images.append(draw_restrained(space, plain, made, averages, component, own, np.concatenate(allowed), bits))
    return np.stack(images)


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
    asked = label_shares(job), item.images, item.points, job.streams.secret
    pairs, positions, released = layout(labels, *asked, [group.view for group in groups])
    means = averages_of(patients, [torch.from_numpy(group.members) for group in groups])
    components = means.components[pairs]
    assert bool((components[:, 0] == components[:, 1]).all()), "a walk joins two groups of one label"
    ours, least = torch.from_numpy(labels)[pairs[:, 0]], int(sizes[pairs.numpy()].sum(axis=1).min())
    return Walks(
        means.codes[pairs],
        positions,
        released,
        ours,
        components[:, 0],
        least,
        [(groups[first].members, groups[last].members) for first, last in pairs.tolist()],
    )


def candidates_of(job: Job[LinearWalk], walks: Walks, images: ByteImages) -> CandidateSet:
    """The images of the points that `walks.released_points` names, as candidates of the job's item."""
    points, steps = walks.released_points(), walks.positions.shape[1]
    labels = walks.labels.repeat_interleave(steps)[points]
    if walks.behind:
        job.keep_behind([np.concatenate(walks.behind[point // steps]) for point in points.tolist()])
    level = job.plan.guarantee_level(job.item)
    return CandidateSet(job.item.method, job.item.model, level, images, labels.numpy(), walks.patients)


def layout(
    labels: Counts,
    shares: npt.NDArray[np.float64],
    images: int,
    points: int,
    secret: SecretStream,
    views: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Which groups (labels [G]) are joined, and where: pairs int64 [W, 2], positions [W, T], released bool [W, T].

    Labels with one group or none give their part of `shares` [K] to the others; points beyond a label's part of
    `images` are dropped at random. Groups of two `views` [G] are never joined, and a view has walks as it has groups.
    Raises DataError when no label has two groups.
    """
    seen = np.zeros(len(labels), dtype=np.str_) if views is None else np.array(views, dtype=np.str_)
    homes = [_of_one_view(np.flatnonzero(labels == label), seen) for label in range(len(shares))]
    able = np.array([bool(own) for own in homes])
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
        sizes = np.array([len(home) for home in homes[label]])
        walks_in = apportion(walks, sizes / sizes.sum()).tolist()
        drawn = [_pairs(home, some, points, secret) for home, some in zip(homes[label], walks_in, strict=True) if some]
        pairs, positions = (torch.cat(part) for part in zip(*drawn, strict=True))
        released = torch.zeros(walks * points, dtype=torch.bool)
        released[torch.from_numpy(secret.permutation(walks * points))[: counts[label]]] = True
        parts.append((pairs, positions, released.view(walks, points)))
    pairs, positions, released = (torch.cat(part) for part in zip(*parts, strict=True))
    return pairs, positions, released


def _of_one_view(groups: Counts, views: npt.NDArray[np.str_]) -> list[Tensor]:
    """`groups` by view, where there are two of one."""
    parts = [groups[views[groups] == view] for view in np.unique(views[groups])]
    return [torch.from_numpy(part) for part in parts if len(part) >= 2]


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

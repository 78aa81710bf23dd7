"""Groups of at least k patients, by greedy same-size grouping (k-SALSA: Jeon et al. 2022), right for every n and k.

The published code groups images, leaves groups below k where k does not divide n, and groups anew at every run; here
the patient is the unit, what is left over joins a group or is left out, and a cohort's grouping is frozen: two
groupings of nearly the same patients would show by subtraction who is in one of them and not in the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.distances import points_of
from sfumato_client.anonymise.entering import entering_cohort
from sfumato_client.anonymise.inversion import patient_labels
from sfumato_client.dataset import Cohort
from sfumato_client.dataset.cohort import Views
from sfumato_common.errors import DataError, PolicyRefusal, ReleaseRefused
from sfumato_common.files import write_atomic
from sfumato_common.generators.components import component_shares
from sfumato_common.locks import in_turn
from sfumato_common.study.counted import Counted
from sfumato_common.study.release import Grouped, LinearWalk

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
_ROWS = 256  # of the distance matrix at once: it would be large whole


@dataclass(frozen=True, eq=False)
class Group:
    """Patients [M] that share an image, each counted once, the label that the image gets, and the view of all theirs.

    The view is empty where nothing is known of it, or the item does not ask.
    """

    members: Indices
    label: int
    view: str = ""


@dataclass(frozen=True, eq=False)
class Grouping:
    """All groups of a cohort; all items of a release have the same."""

    groups: list[Group]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Which group is behind which image of an item, in the order of its images; it never leaves."""

    groups: list[Group]


def groups_of(job: Job[Grouped]) -> list[Group]:
    """The cohort's groups under the item's terms: those frozen in the grouping file where there is one, else new ones.

    Raises PolicyRefusal when the site grouped other patients, or by other terms, and its policy forbids to regroup;
    DataError when the frozen groups are damaged.
    """
    return job.release.once(Grouping, job.item.grouping, lambda: _grouping(job)).groups


def _grouping(job: Job[Grouped]) -> Grouping:
    item, labels, views = job.item, patient_labels(job.cohort, len(job.plan.labels)), _views(job.cohort, job.item)
    terms = {"cohort": fingerprint(job.cohort, views), "terms": list(item.grouping)}
    path = job.release.grouping_file
    # chance is drawn also where groups are kept: what is drawn after it stays the same
    points = points_of(job) if item.distance == "random" else None
    with in_turn(path.parent) if path is not None else nullcontext():  # two studies at once would each form their own
        members = _read_frozen(path, terms, len(labels), item, job.release.regroup) if path is not None else None
        if members is None:
            members = form_groups(points_of(job) if points is None else points, labels, item, views)
            if path is not None:
                kept = {**terms, "groups": [group.tolist() for group in members]}
                write_atomic(path, json.dumps(kept, sort_keys=True) + "\n", mode=0o600)
    named = np.full(len(labels), "") if views is None else views
    return Grouping([Group(group, int(np.bincount(labels[group]).argmax()), str(named[group[0]])) for group in members])


def choose_groups(job: Job[Grouped], groups: list[Group]) -> list[Group]:
    """As many groups as the item has images, drawn at random within labels, in random order.

    Labels get their released shares; where one has too few groups, those with most to spare stand in. Who is behind
    which image stays with the release (`Chosen`), and is noted for the gate.

    Raises DataError when there are not enough in all.
    """
    item = job.item
    if len(groups) < item.images:
        raise DataError(
            f"the training cohort has too few patients for that many groups of {item.k}: ask for fewer images, a "
            "smaller k, or 'remainder: merge'"
        )
    own = [[group for group in groups if group.label == label] for label in range(len(job.plan.labels))]
    sizes = np.array([len(part) for part in own])
    counts = np.minimum(apportion(item.images, label_shares(job)), sizes)
    while counts.sum() < item.images:
        counts[(sizes - counts).argmax()] += 1
    drawn = [
        part[index]
        for part, count in zip(own, counts.tolist(), strict=True)
        for index in job.streams.secret.permutation(len(part))[:count].tolist()
    ]
    order = job.streams.secret.permutation(len(drawn)).tolist()
    kept = job.release.once(Chosen, (type(item), item.model), lambda: Chosen([drawn[index] for index in order]))
    job.keep_behind([group.members for group in kept.groups])
    return list(kept.groups)


def most_images(cohort: Cohort, item: Grouped, classes: int) -> int:
    """The largest number of images that the cohort's groups give: one a group, or any on walks between two of a label.

    Greedy grouping by labels reaches it. For l-diverse groups it is an upper bound: how many there are depends on who
    is like whom.
    """
    entering = entering_cohort(cohort, item)
    parts = parts_of(patient_labels(entering, classes), item, _views(entering, item))
    groups = np.array([0, *(len(part) // item.least_patients for part in parts)])
    if isinstance(item, LinearWalk):
        return item.images if groups.max() >= 2 else 0
    return int(groups.sum())


def _views(entering: Cohort, item: Grouped) -> Views | None:
    """The view [P] of what each patient brings; None where a patient brings whatever there is."""
    return None if item.views == "mean" else entering.views


def require_k(least: int, k: int) -> None:
    """Raise ReleaseRefused when an image would be made from fewer than k patients: the last look before it is."""
    if least < k:
        raise ReleaseRefused(f"a group has fewer than {k} patients; nothing is made from it")


def label_shares(job: Job[Counted]) -> Float64:
    """Share of each label [K] at this site by the released counts."""
    shares = component_shares(job.plan, job.models[job.plan.base], job.site)
    return np.asarray(shares.reshape(-1, len(job.plan.labels)).sum(axis=0))


def apportion(total: int, shares: Float64) -> Indices:
    """`total` things in whole numbers [K] by shares that sum to 1: largest remainder (Hamilton 1792)."""
    quotas = total * shares
    counts = np.floor(quotas).astype(np.int64)
    left = total - int(counts.sum())
    counts[np.argsort(counts - quotas, kind="stable")[:left]] += 1
    return counts


def form_groups(points: Float64, labels: Indices, item: Grouped, views: Views | None = None) -> list[Indices]:
    """Disjoint groups of at least k patients, near in points [P, F], with labels [P]; patients in none are left out.

    With `views` [P] a group's patients are of one.
    """
    least = 1 if item.groups == "within-label" else item.least_labels
    return [group for part in parts_of(labels, item, views) for group in _greedy(points, labels, part, item, least)]


def parts_of(labels: Indices, item: Grouped, views: Views | None) -> list[Indices]:
    """The patients [P] in parts that share no group: by label where groups are within one, and by view."""
    apart = labels if item.groups == "within-label" else np.zeros_like(labels)
    if views is None:
        return [np.flatnonzero(apart == one) for one in np.unique(apart)]
    kinds = np.unique(views, return_inverse=True)[1]
    both = apart * (len(views) + 1) + kinds
    return [np.flatnonzero(both == one) for one in np.unique(both)]


def _greedy(points: Float64, labels: Indices, part: Indices, item: Grouped, least_labels: int) -> list[Indices]:
    """Groups of the patients `part`, each of at least `least_labels` labels."""
    size, left, groups = max(item.k, least_labels), part, []
    far = np.concatenate([np.zeros(0), *(_distances(rows, points[left]).sum(axis=1) for rows in _slices(points[left]))])
    while len(left) >= size and len(np.unique(labels[left])) >= least_labels:
        first = int(far.argmax())
        near = _distances(points[left], points[left[first : first + 1]])[:, 0]
        taken = _nearest(near, labels[left], size, least_labels)
        groups.append(left[taken])
        far = np.delete(far - _distances(points[left], points[left[taken]]).sum(axis=1), taken)
        left = np.delete(left, taken)
    return _merge_left(points, groups, left) if item.remainder == "merge" else groups


def _slices(rows: Float64) -> list[Float64]:
    return [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]


def _nearest(near: Float64, labels: Indices, size: int, least_labels: int) -> Indices:
    """The `size` smallest of `near` that have `least_labels` labels among them: the nearest of each new label first."""
    order = np.argsort(near, kind="stable")
    firsts = np.sort(np.unique(labels[order], return_index=True)[1])[:least_labels]
    return np.concatenate([order[firsts], np.delete(order, firsts)[: size - len(firsts)]])


def _merge_left(points: Float64, groups: list[Indices], left: Indices) -> list[Indices]:
    """Each of the patients `left` in the group with the nearest mean; in none where there is no group."""
    if not groups:
        return []
    means = np.stack([points[group].mean(axis=0) for group in groups])
    homes = _distances(points[left], means).argmin(axis=1)
    return [np.concatenate([group, left[homes == number]]) for number, group in enumerate(groups)]


def _distances(ones: Float64, others: Float64) -> Float64:
    """Euclidean distances [N, M] of points [N, D] and [M, D]."""
    return torch.cdist(torch.from_numpy(ones), torch.from_numpy(others)).numpy()


def fingerprint(cohort: Cohort, views: Views | None = None) -> str:
    """SHA-256 over a cohort's pixels, labels and patient_index, and over `views` where they say who shares a group."""
    digest = hashlib.sha256()
    for array in (*cohort.everything(), *(() if views is None else (views,))):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _read_frozen(
    path: Path, terms: Mapping[str, object], patients: int, item: Grouped, regroup: bool
) -> list[Indices] | None:
    """The groups in the file at `path`; None where there is none, or the policy lets other ones take its place."""
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_bytes())
        same = {key: kept[key] for key in terms} == terms
        members = [np.array(group, dtype=np.int64) for group in kept["groups"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the site's frozen groups cannot be read: {path}; take them from the backup") from error
    if not same:
        if regroup:
            return None
        raise PolicyRefusal(
            "patients were grouped before, others or by other terms: two groupings show by subtraction who is in one "
            "of them only; keep cohort and terms, or let the policy say 'release.regroup: allowed'"
        )
    everyone = np.concatenate([np.zeros(0, dtype=np.int64), *members])
    whole = all(len(group) >= item.k for group in members) and len(np.unique(everyone)) == len(everyone)
    if not whole or not ((everyone >= 0) & (everyone < patients)).all():
        raise DataError(f"the site's frozen groups do not fit its patients: {path}; take them from the backup")
    return members

"""k-same: the image of the mean code of each group of at least k patients (Newton et al. 2005, in the W space).

The centroid baseline of k-SALSA. Guarantee level: syntactic, of one release; heuristic where the generator itself was
trained without privacy and may show a record on its own.
"""

from __future__ import annotations

import numpy as np
import torch

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.groups import choose_groups, groups_of, require_k
from sfumato_client.anonymise.inversion import drawn_images, space_of
from sfumato_client.anonymise.patients import averages_of, patients_of
from sfumato_common.study.release import KSame


def k_same(job: Job[KSame]) -> CandidateSet:
    """One image a group, of the group's label. Raises what `groups_of` and `choose_groups` raise."""
    item = job.item
    patients = patients_of(job)
    groups = choose_groups(job, groups_of(job))
    smallest = min(len(np.unique(group.members)) for group in groups)
    require_k(smallest, item.k)
    labels = np.array([group.label for group in groups], dtype=np.int64)
    means = averages_of(patients, [torch.from_numpy(group.members) for group in groups])
    images = drawn_images(job, space_of(job), means.codes, means.components)
    return CandidateSet(
        item.method, item.model, "syntactic" if job.plan.private else "heuristic", images, labels, smallest
    )

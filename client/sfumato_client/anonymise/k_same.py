"""k-same: the image of the mean code of each group of at least k patients (Newton et al. 2005, in a latent space).

The centroid baseline of k-SALSA. Guarantee level: syntactic, of one release; heuristic where the generator itself was
trained without privacy and may show a record on its own.
"""

from __future__ import annotations

import numpy as np

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.groups import choose_groups, groups_of, require_k
from sfumato_client.anonymise.influence import (
    allowed_moves,
    averages_without,
    draw_restrained,
    noise_of,
    with_each_left_out,
)
from sfumato_client.anonymise.inversion import space_of
from sfumato_client.anonymise.patients import averages_of, patients_of
from sfumato_common.study.release import KSame


def k_same(job: Job[KSame]) -> CandidateSet:
    """One image a group, of the group's label.

    Raises what `groups_of` and `choose_groups` raise, and ReleaseRefused where an image hangs on one patient.
    """
    item = job.item
    patients = patients_of(job)
    groups = choose_groups(job, groups_of(job))
    smallest = min(len(np.unique(group.members)) for group in groups)
    require_k(smallest, item.k)
    labels = np.array([group.label for group in groups], dtype=np.int64)
    space, images = space_of(job), []
    for group in groups:
        means = averages_of(patients, with_each_left_out(group.members))
        component = means.components[:1]
        noise = noise_of(space, component, job.streams.published)
        allowed, bits = allowed_moves(job.cohort, group.members), job.plan.image.bits
        averages = averages_without(job.cohort, group.members)
        images.append(draw_restrained(space, means.codes, means.codes, averages, component, noise, allowed, bits))
    level = job.plan.guarantee_level(item)
    return CandidateSet(item.method, item.model, level, np.stack(images), labels, smallest)

"""The patients of a release, each encoded under the one component that an image with a part of them is decoded under.

Coordinators fit the spectral models, and one that crafts them could have members of a group encoded by one model and
their mean decoded by another: what lies between the two would be the coordinator's to choose, and one record of the
group could be all that is seen. So codes are made after the groups, under the group's component, and a mean code
carries that component with it: there is no other way to a mean (`averages_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.groups import groups_of
from sfumato_client.anonymise.inversion import Inverter, inverter_of, inverting_settings, patient_labels
from sfumato_client.dataset import Cohort
from sfumato_common.errors import ReleaseRefused
from sfumato_common.generators.components import components_of
from sfumato_common.study.release import Grouped
from sfumato_common.types import ByteImages


@dataclass(frozen=True, eq=False)
class Patients:
    """One code a patient [P, D], the mean over the patient's images, with label [P] and the code's component [P].

    `images` [P, S, S(, 3)] holds the one image of each patient whose code is nearest to the mean.
    """

    codes: Tensor
    labels: npt.NDArray[np.int64]
    components: Tensor
    images: ByteImages


@dataclass(frozen=True, eq=False)
class Averages:
    """Mean codes [G, D], and the component [G] that all members of each were encoded under."""

    codes: Tensor
    components: Tensor


def averages_of(patients: Patients, groups: Sequence[Tensor]) -> Averages:
    """Means of groups, rows of `patients`. Raises ReleaseRefused where a group's codes are of several components."""
    for members in groups:
        if bool((patients.components[members] != patients.components[members[0]]).any()):
            raise ReleaseRefused("a mean of codes that were made under several components means nothing; encode anew")
    codes = torch.stack([patients.codes[members].mean(dim=0) for members in groups])
    return Averages(codes, torch.stack([patients.components[members[0]] for members in groups]))


def patients_of(job: Job[Grouped]) -> Patients:
    """Every patient of the cohort, inverted once for all items that invert and group alike.

    Raises what `groups_of` raises.
    """
    item = job.item
    return job.release.once(Patients, (*inverting_settings(item), *item.grouping), lambda: _patients(job))


def _patients(job: Job[Grouped]) -> Patients:
    labels = patient_labels(job.cohort, len(job.plan.labels))
    decoded = labels.copy()  # of a patient in no group the code is never used
    for group in groups_of(job):
        decoded[group.members] = group.label
    components = components_of(job.plan, job.site, torch.from_numpy(decoded))
    return encode_patients(inverter_of(job), job.cohort, labels, components)


def encode_patients(inverter: Inverter, cohort: Cohort, labels: npt.NDArray[np.int64], components: Tensor) -> Patients:
    """The cohort's patients with `labels` [P], each encoded under its own of `components` [P]."""
    images, _, patient_index = cohort.everything()
    index = torch.from_numpy(patient_index)
    codes = inverter.codes(images, components[index])
    sums = torch.zeros(cohort.patients, codes.shape[1]).index_add_(0, index, codes)
    means = sums / torch.bincount(index, minlength=cohort.patients)[:, None]
    away = (codes - means[index]).square().sum(dim=1).numpy()
    order = np.lexsort((away, patient_index))
    nearest = order[np.searchsorted(patient_index[order], np.arange(cohort.patients))]
    return Patients(means, labels, components, images[nearest])

"""A release whose factors a hostile coordinator chose, by the product's own k-same without its defences."""

from __future__ import annotations

import warnings

import numpy as np

from sfumato_client.anonymise import anonymise
from sfumato_client.audit.attacks import Known, People
from sfumato_client.audit.attacks.base import Indices
from sfumato_client.dataset import Cohort
from support.averages import (
    behind_images,
    carrier,
    encoded_by_own_label,
    honest,
    job_of,
    nobody_left_out,
    plan_of,
    scrambler,
    site_cohort,
)

FACTORS = {"honest": honest, "plain": carrier, "scrambled": lambda: scrambler().spectral}
IMAGES, MEMBERS, HOLDOUT = 40, 480, 480
_AIMED_AT = 1  # the label whose factor is crafted


def planted(factors: str, seed: int) -> tuple[People, People, Known]:
    """Members, holdout patients and what was released of the members under the named factors, with who is behind it.

    `plain`: all of an image but the fifths of the others is its group's patient of label 1. `scrambled`: that patient's
    coarse picture is written in the image's finest frequencies, for whoever holds the key. `honest`: averages.
    """
    members, holdout = site_cohort(2 * seed + 10, MEMBERS), site_cohort(2 * seed + 11, HOLDOUT)
    with warnings.catch_warnings(), encoded_by_own_label(), nobody_left_out():
        warnings.simplefilter("ignore")  # streams that are the same at each run say that they protect nobody
        job = job_of(plan_of("k-same", images=IMAGES, distance="random"), FACTORS[factors](), seed, cohort=members)
        found = anonymise(job)
    return people_of(members), people_of(holdout), Known(found.images, found.labels, behind=behind_images(job))


def aimed_at(members: People, holdout: People, known: Known) -> tuple[People, People, Known]:
    """The patients of the crafted label alone: those who are behind an image, and strangers of that label."""
    behind = [patients[_labels(members)[patients] == _AIMED_AT] for patients in known.behind]
    strangers = np.flatnonzero(_labels(holdout) == _AIMED_AT)
    own = Known(known.candidates, known.labels, behind=behind)
    return _some(members, np.concatenate(behind)), _some(holdout, strangers), own


def of_others(seed: int) -> tuple[People, People, Known]:
    """As `plain`, and said to be of people of whom nobody is behind it."""
    _, holdout, known = planted("plain", seed)
    return people_of(site_cohort(2 * seed + 1010, MEMBERS)), holdout, known


def people_of(cohort: Cohort) -> People:
    """All of a cohort."""
    images, labels, patient_index = cohort.everything()
    return People(np.asarray(images), patient_index, labels)


def _labels(people: People) -> Indices:
    """The label [P] of each patient's first image."""
    return np.asarray(people.labels[np.unique(people.patient_index, return_index=True)[1]])


def _some(people: People, patients: Indices) -> People:
    mine = np.isin(people.patient_index, patients)
    return People(people.images[mine], people.patient_index[mine], people.labels[mine])

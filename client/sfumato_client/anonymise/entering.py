"""Which image of a patient enters a group: one, of one laterality and view, so that two eyes are never averaged.

A patient stays the unit, and is in one group at most. Of a patient's images that one enters whose laterality and view
most patients of the site have, the first in stored order; it brings its own label. Images of which neither is known are
a kind of their own, and enter where a patient has no other. So what a picture shows is compared and averaged with what
others show from the same side only, as far as the site's files say it; where they say nothing, left and right eyes of
different patients share groups, and only a patient's own are kept apart.
"""

from __future__ import annotations

import numpy as np

from sfumato_client.dataset import Cohort
from sfumato_client.dataset.cohort import Indices, Views
from sfumato_common.study.release import Grouped


def entering_cohort(cohort: Cohort, item: Grouped) -> Cohort:
    """The cohort as the item groups it: with all images of a patient, or with one each [P] and its view.

    Patients keep their numbers. Under `views: mirrored` left images are mirrored (left to right in the picture), and
    are of the right's view.
    """
    if item.views == "mean":
        return cohort
    views = np.full(len(cohort.labels), "") if cohort.views is None else cohort.views
    left = np.array([view.split()[:1] == ["L"] for view in views.tolist()], dtype=np.bool_)
    if item.views == "mirrored":
        views = np.where(left, np.char.add("R", np.char.lstrip(views, "L")), views)
    chosen = _chosen(cohort.patient_index, views)
    images = np.array(cohort.images[chosen if cohort.rows is None else cohort.rows[chosen]])
    if item.views == "mirrored":
        images[left[chosen]] = images[left[chosen], :, ::-1]
    return Cohort(images, cohort.labels[chosen], np.arange(cohort.patients), views=views[chosen])


def _chosen(patient_index: Indices, views: Views) -> Indices:
    """One image of each patient [P], by number."""
    kinds, kind = np.unique(views, return_inverse=True)
    patients = int(patient_index.max(initial=-1)) + 1
    has = np.zeros((patients, len(kinds)), dtype=np.bool_)
    has[patient_index, kind] = True
    # the last key counts first: known before unknown, then what most patients have, then by name
    order = np.lexsort((np.arange(len(kinds)), -has.sum(axis=0), kinds == ""))
    rank = np.argsort(order)
    first = np.lexsort((np.arange(len(kind)), rank[kind], patient_index))
    return np.asarray(first[np.searchsorted(patient_index[first], np.arange(patients))])

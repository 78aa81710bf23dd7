"""The steward's neighbours are the gate's nearest patients, though the cohort is read once and a piece at a time."""

import numpy as np
import pytest

from sfumato_client.dataset import Cohort
from sfumato_client.review import neighbours
from sfumato_client.review.neighbours import Neighbours
from sfumato_common.metrics.nearest import patient_distances
from sfumato_common.phantom import arrays


class Counted:
    """Images that count how many are taken at once, and in all."""

    def __init__(self, images):
        self._images, self.shape, self.dtype = images, images.shape, images.dtype
        self.largest, self.taken = 0, 0

    def __len__(self):
        return len(self._images)

    def __getitem__(self, rows):
        found = self._images[rows]
        count = 1 if found.ndim == 2 else len(found)
        self.largest, self.taken = max(self.largest, count), self.taken + count
        return found


@pytest.fixture(scope="module")
def people():
    images, grades, patients = arrays(0, 60, 32)
    order = np.random.default_rng(0).permutation(len(images))  # a patient's images are not next to each other
    return images[order], (grades > 0).astype(np.int64)[order], np.unique(patients[order], return_inverse=True)[1]


def test_neighbours_are_the_nearest_patients_each_by_the_nearest_image(people, monkeypatch):
    monkeypatch.setattr(neighbours, "_AT_ONCE", 16)
    images, labels, patients = people
    counted = Counted(np.concatenate([images[:7], images]))
    index = Neighbours(Cohort(counted, labels, patients, rows=7 + np.arange(len(images))))
    assert (counted.largest, counted.taken) == (16, len(images))
    candidates, _, _ = arrays(9, 6, 32)
    for candidate in [*candidates, images[5][:, ::-1]]:
        found = index.nearest(candidate)
        distances = patient_distances(candidate[None], images, patients)[0]
        assert np.allclose([each.distance for each in found], np.sort(distances)[:4], atol=1e-3)
        for each, patient in zip(found, np.argsort(distances, kind="stable"), strict=False):
            (at,) = (row for row in np.flatnonzero(patients == patient) if np.array_equal(images[row], each.image))
            assert each.label == labels[at]
    assert index.nearest(images[5][:, ::-1])[0].distance < 0.05, "a mirrored copy"
    assert counted.taken == len(images) + 4 * (len(candidates) + 2), "what is shown is read, and nothing else again"


def test_a_cohort_of_nobody_has_no_neighbours():
    nobody = np.zeros(0, np.int64)
    assert Neighbours(Cohort(np.zeros((0, 8, 8), np.uint8), nobody, nobody)).nearest(np.eye(8, dtype=np.uint8)) == []

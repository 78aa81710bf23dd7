"""The real images nearest to a candidate, for the steward's eyes on this machine: in memory, never in a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato_client.dataset import Cohort
from sfumato_common.metrics.nearest import nearest_distances, patient_distances
from sfumato_common.types import AnyArray


@dataclass(frozen=True)
class Neighbour:
    """A training patient's image [S, S(, 3)] nearest to a candidate; `distance` as the gate measures it, 0 to 1.41."""

    image: AnyArray
    label: int
    distance: float


def nearest_patients(candidate: AnyArray, cohort: Cohort, most: int = 4) -> list[Neighbour]:
    """The nearest image of each of the `most` training patients nearest to `candidate` [S, S(, 3)], nearest first."""
    if cohort.patients == 0:
        return []
    images, _, patient_index = cohort.everything()
    distances = patient_distances(candidate[None], images, patient_index)[0]
    found = []
    for patient in np.argsort(distances, kind="stable")[:most]:
        own, labels = cohort.images_of(int(patient))
        at = int(np.argmin(nearest_distances(own, candidate[None])))
        found.append(Neighbour(own[at], int(labels[at]), float(distances[patient])))
    return found

"""The real images nearest to a candidate, for the steward's eyes on this machine: in memory, never in a file.

The cohort is read once, a chunk at a time. What is kept of each image is the fingerprint that the gate's distance
compares, 4 KB or so. Of the images themselves those are read that are shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato_client.dataset import Cohort
from sfumato_common.metrics.nearest import target_distances, targets_of
from sfumato_common.types import AnyArray

_AT_ONCE = 256  # images read at a time


@dataclass(frozen=True)
class Neighbour:
    """A training patient's image [S, S(, 3)] nearest to a candidate; `distance` as the gate measures it, 0 to 1.41."""

    image: AnyArray
    label: int
    distance: float


class Neighbours:
    """An index of the training patients of one review, built when it is first asked for."""

    def __init__(self, cohort: Cohort) -> None:
        self._cohort = cohort
        parts = [targets_of(images) for images in cohort.chunks(_AT_ONCE)]
        self._targets = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def nearest(self, candidate: AnyArray, most: int = 4) -> list[Neighbour]:
        """The nearest image of each of the `most` patients nearest to `candidate` [S, S(, 3)], nearest first."""
        if self._cohort.patients == 0:
            return []
        distances, whose = target_distances(candidate[None], self._targets), self._cohort.patient_index
        order = np.argsort(distances, kind="stable")
        # the first of each patient in that order is the patient's nearest image
        first = order[np.sort(np.unique(whose[order], return_index=True)[1])[:most]]
        return [
            Neighbour(self._cohort.image(at), int(self._cohort.labels[at]), float(distances[at]))
            for at in first.tolist()
        ]

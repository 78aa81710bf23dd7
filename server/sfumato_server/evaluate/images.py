"""A set of labelled images in memory, in the published set's form, and parts of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_common.types import ByteImages

Rows = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]
Words = npt.NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Images:
    """Integer images [N, S, S] or [N, S, S, 3], labels [N], whose each is [N], and its groups [N] by their kind.

    A synthetic image is nobody's: each has a number of its own. Groups are words; an empty one is not known.
    """

    pixels: ByteImages
    labels: Labels
    patients: Labels
    groups: Mapping[str, Words]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: Rows | npt.NDArray[np.bool_]) -> Images:
        """Some rows."""
        groups = {kind: words[rows] for kind, words in self.groups.items()}
        return Images(self.pixels[rows], self.labels[rows], self.patients[rows], groups)

    def some(self, most: int, rng: np.random.Generator) -> Images:
        """At most `most` images, drawn without replacement, in their order."""
        return self if len(self) <= most else self.part(np.sort(rng.choice(len(self), most, replace=False)))

    def of_share(self, share: float, rng: np.random.Generator) -> Images:
        """All images of a share of the patients, of each label at least one: by the label of a patient's first."""
        if share >= 1.0:
            return self
        people, first = np.unique(self.patients, return_index=True)
        kept = []
        for label in np.unique(self.labels[first]):
            own = people[self.labels[first] == label]
            kept.append(rng.choice(own, int(np.ceil(share * len(own))), replace=False))
        return self.part(np.isin(self.patients, np.concatenate(kept)))

    def people(self) -> int:
        """How many patients."""
        return len(np.unique(self.patients))


def together(first: Images, second: Images) -> tuple[ByteImages, Labels]:
    """Pixels and labels of both, the smaller set repeated in whole until it is about as large as the other."""
    parts = [first, second]
    largest = max(len(first), len(second))
    times = [max(1, round(largest / len(part))) for part in parts]
    pixels = np.concatenate([part.pixels for part, count in zip(parts, times, strict=True) for _ in range(count)])
    labels = np.concatenate([part.labels for part, count in zip(parts, times, strict=True) for _ in range(count)])
    return pixels, labels

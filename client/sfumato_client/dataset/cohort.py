"""A cohort: images grouped by patient, the unit of protection; knows nothing of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sfumato_common.errors import DataError
from sfumato_common.study.policy import Policy
from sfumato_common.types import AnyArray

Indices = npt.NDArray[np.int64]
Views = npt.NDArray[np.str_]


class Pixels(Protocol):
    """Images as an array [N, S, S(, 3)] that is only read; numbers give images, a copy where encrypted."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, S, S(, 3)]."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images [N, S, S] or [N, S, S, 3] with labels [N] and `patient_index` [N], which is 0 .. patients - 1.

    `rows` [N] picks the cohort's images out of a larger (encrypted) array; without it `images` is the cohort.
    `views` [N] are laterality and view position in a word each, empty where nothing is known; None says so of all.
    """

    images: Pixels
    labels: Indices
    patient_index: Indices
    rows: Indices | None = None
    views: Views | None = None
    _order: Indices = field(init=False, repr=False)
    _starts: Indices = field(init=False, repr=False)

    def __post_init__(self) -> None:
        patient_index = np.asarray(self.patient_index, dtype=np.int64)
        count = len(self.images) if self.rows is None else len(self.rows)
        assert patient_index.shape == np.shape(self.labels) == (count,), "one label and one patient an image"
        assert self.views is None or self.views.shape == (count,), "one view an image"
        sizes = np.bincount(patient_index)
        assert count == 0 or int(sizes.min()) > 0, "patients are numbered 0 .. patients - 1 without gaps"
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int64))
        object.__setattr__(self, "patient_index", patient_index)
        object.__setattr__(self, "_order", np.argsort(patient_index, kind="stable"))
        object.__setattr__(self, "_starts", np.concatenate(([0], np.cumsum(sizes))).astype(np.int64))

    @property
    def patients(self) -> int:
        """Number of patients (exact: never leaves the site)."""
        return len(self._starts) - 1

    def images_of(self, patient: int) -> tuple[AnyArray, Indices]:
        """All images [m, S, S(, 3)] and labels [m] of one patient, in their stored order."""
        if not 0 <= patient < self.patients:
            raise IndexError("no such patient in this cohort")
        mine = self._order[self._starts[patient] : self._starts[patient + 1]]
        return np.asarray(self.images[mine if self.rows is None else self.rows[mine]]), self.labels[mine]

    def chunks(self, size: int) -> Iterator[AnyArray]:
        """All images, `size` at a time [n, S, S(, 3)], in stored order: of an encrypted array no more is in memory."""
        count = len(self.labels)
        for at in range(0, count, size):
            rows = np.arange(at, min(at + size, count))
            yield np.asarray(self.images[rows if self.rows is None else self.rows[rows]])

    def image(self, number: int) -> AnyArray:
        """One image [S, S(, 3)], by its place in stored order."""
        return np.asarray(self.images[number if self.rows is None else int(self.rows[number])])

    def everything(self) -> tuple[AnyArray, Indices, Indices]:
        """Images [N, S, S(, 3)], labels [N], patient_index [N], in stored order; a copy where encrypted."""
        images = np.asarray(self.images if self.rows is None else self.images[self.rows])
        return images, self.labels, self.patient_index


def require_patients(cohort_total: int, policy: Policy) -> None:
    """Raises DataError when the site has fewer patients than its policy asks for; the message has no exact count.

    For the steward's own commands alone. An answer to the coordinator that hung on it would tell, uncharged, whether
    the one patient is there who makes the number whole.
    """
    if cohort_total < policy.minimum_patients * (1.0 + policy.minimum_slack):
        raise DataError(
            "the site has fewer patients than its policy's minimum_patients and minimum_slack ask for; nothing was "
            "computed on them"
        )

"""Poisson batches of patients in one public shape (Abadi et al. 2016 sample lots).

A patient joins a batch with the plan's rate, independently, and brings at most m images that count as their mean. How
many came is secret: batches are padded to a capacity computed from the plan, so that the work of a step does not tell.
Who came stands in random places. So a patient more or less leaves the others where they are, or one of them where a
further batch begins, and with them the roundings of sums over blocks of places (`contract.BLOCK`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_client.training import TrainingCohort
from sfumato_common.generators.settings import DpSgdStage
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.types import values_of

_PLACES = 32  # a capacity is a multiple of it
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PatientBatch:
    """P places for patients, m rows each: images [P * m, C, S, S] (or features [P * m, d]), labels, weights [P, m].

    A patient with k images has weight 1/k on its first k rows and repeats images on the others, at weight zero. Places
    that nobody took hold zeros at weight zero.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor


def capacity(stage: DpSgdStage, nominal_patients: int) -> int:
    """Places of a batch: four standard deviations above the nominal mean, in whole blocks of 32; public."""
    mean = stage.sampling_rate * nominal_patients
    return math.ceil((mean + 4.0 * math.sqrt(mean)) / _PLACES) * _PLACES


def patient_batches(
    cohort: TrainingCohort,
    stage: DpSgdStage,
    nominal_patients: int,
    secret: SecretStream,
    form: Sequence[int],
) -> Iterator[list[PatientBatch]]:
    """The patients of each of the stage's local steps, as one batch of the public shape; `form` is (C, S, S), or (d,).

    More patients than its capacity are not cut, which would break the accounting: they fill further batches of the same
    shape, so that nothing that is computed from a batch ever sees another one.
    """
    places, views = capacity(stage, nominal_patients), stage.images_per_patient
    for drawn in placed_samples(cohort.patients, stage, places, secret):
        yield [_batch(cohort, seats, places, views, secret, form) for seats in drawn]


def placed_samples(
    patients: int, stage: DpSgdStage, places: int, secret: SecretStream
) -> Iterator[list[tuple[Indices, Indices]]]:
    """For each of the stage's local steps, and each batch of it: which patients came, and the place of each.

    A step has one batch at least, if nobody came an empty one.
    """
    for _ in range(stage.local_steps):
        came = secret.poisson_sample(patients, stage.sampling_rate)
        came = came[secret.permutation(len(came))]
        parts = [came[start : start + places] for start in range(0, max(1, len(came)), places)]
        yield [(part, secret.permutation(places)[: len(part)]) for part in parts]


def _batch(
    cohort: TrainingCohort,
    seats: tuple[Indices, Indices],
    places: int,
    views: int,
    secret: SecretStream,
    form: Sequence[int],
) -> PatientBatch:
    images = torch.zeros(places, views, *form)
    labels = torch.zeros(places, views, dtype=torch.int64)
    weights = torch.zeros(places, views)
    for patient, place in zip(*(part.tolist() for part in seats), strict=True):
        own, own_labels = cohort.images_of(patient)
        kept = secret.permutation(len(own))[:views]
        rows = np.resize(kept, views)
        images[place] = torch.from_numpy(values_of(own[rows]))
        labels[place] = torch.from_numpy(own_labels[rows])
        weights[place, : len(kept)] = 1.0 / len(kept)
    return PatientBatch(images.flatten(0, 1), labels.flatten(), weights)

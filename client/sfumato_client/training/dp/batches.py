"""Poisson batches of patients in one public shape (Abadi et al. 2016 sample lots; Opacus's sampler draws them).

A patient joins a batch with the plan's rate, independently, and brings at most m images that count as their mean. How
many came is secret: batches are padded to a capacity computed from the plan, so that the work of a step does not tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato_client.training import TrainingCohort
from sfumato_common.study.stages import DpSgdStage
from sfumato_common.types import to_unit_range

_BLOCK = 32


@dataclass(frozen=True)
class PatientBatch:
    """P places for patients, m rows each: images [P * m, C, S, S], labels [P * m], weights [P, m].

    A patient with k images has weight 1/k on its first k rows and repeats images on the others, at weight zero. Places
    that nobody took hold zeros at weight zero.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor


def capacity(stage: DpSgdStage, nominal_patients: int) -> int:
    """Places of a batch: four standard deviations above the nominal mean, in whole blocks of 32; public."""
    mean = stage.sampling_rate * nominal_patients
    return math.ceil((mean + 4.0 * math.sqrt(mean)) / _BLOCK) * _BLOCK


def patient_batches(
    cohort: TrainingCohort,
    stage: DpSgdStage,
    nominal_patients: int,
    generator: torch.Generator,
    form: Sequence[int],
) -> Iterator[list[PatientBatch]]:
    """The patients of each of the stage's local steps, as one batch of the public shape; `form` is (C, S, S).

    More patients than its capacity are not cut, which would break the accounting: they fill further batches of the same
    shape, so that nothing that is computed from a batch ever sees another one.
    """
    # imported here: Opacus costs 2 s, and only DP-SGD stages come this way
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler

    places, views = capacity(stage, nominal_patients), stage.images_per_patient
    # the sampler compares 24-bit uniforms with the rate: rounded down to that grid, nobody is drawn too often
    rate = math.floor(stage.sampling_rate * 2**24) / 2**24
    sampler = UniformWithReplacementSampler(
        num_samples=cohort.patients, sample_rate=rate, generator=generator, steps=stage.local_steps
    )
    for patients in sampler:
        starts = range(0, max(1, len(patients)), places)
        yield [_batch(cohort, patients[start : start + places], places, views, generator, form) for start in starts]


def _batch(
    cohort: TrainingCohort,
    patients: Sequence[int],
    places: int,
    views: int,
    generator: torch.Generator,
    form: Sequence[int],
) -> PatientBatch:
    images = torch.zeros(places, views, *form)
    labels = torch.zeros(places, views, dtype=torch.int64)
    weights = torch.zeros(places, views)
    for place, patient in enumerate(patients):
        own, own_labels = cohort.images_of(patient)
        kept = torch.randperm(len(own), generator=generator)[:views].numpy()
        rows = np.resize(kept, views)
        images[place] = torch.from_numpy(to_unit_range(own[rows]))
        labels[place] = torch.from_numpy(own_labels[rows])
        weights[place, : len(kept)] = 1.0 / len(kept)
    return PatientBatch(images.flatten(0, 1), labels.flatten(), weights)

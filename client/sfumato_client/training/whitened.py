"""Records of flows and diffusion at the site: batches of pixels or of codes, and their whitening."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sfumato_client.training import StageJob, TrainingCohort
from sfumato_client.training.dp.batches import PatientBatch, patient_batches
from sfumato_common.generators.components import components_of
from sfumato_common.generators.settings import WhiteningStage
from sfumato_common.generators.whitening import Whitening
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.types import AnyArray

S = TypeVar("S", bound=WhiteningStage)


@dataclass(frozen=True, eq=False)
class CodedCohort:
    """A cohort's features [N, d] in the place of its images, each of one image, computed once; they never leave."""

    features: AnyArray
    labels: npt.NDArray[np.int64]
    patient_index: npt.NDArray[np.int64]
    patients: int

    @classmethod
    def of(cls, cohort: TrainingCohort, whitening: Whitening) -> CodedCohort:
        """The features of all of a cohort's images."""
        images, labels, patient_index = cohort.everything()
        return cls(whitening.records(images), labels, patient_index, cohort.patients)

    def images_of(self, patient: int) -> tuple[AnyArray, npt.NDArray[np.int64]]:
        """Features [m, d] and labels [m] of one patient."""
        own = self.patient_index == patient
        return self.features[own], self.labels[own]

    def everything(self) -> tuple[AnyArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Features [N, d], labels [N], patient_index [N]."""
        return self.features, self.labels, self.patient_index


def record_batches(job: StageJob[S], whitening: Whitening, secret: SecretStream) -> Iterator[list[PatientBatch]]:
    """`patient_batches` of pixels, or of features where the plan begins with a model of codes."""
    form, nominal = whitening.form, job.plan.sites[job.site].nominal_patients
    if whitening.pixels:
        return patient_batches(job.cohort, job.stage, nominal, secret, form.shape)
    return patient_batches(CodedCohort.of(job.cohort, whitening), job.stage, nominal, secret, (form.numbers,))


def white_records(
    job: StageJob[S], whitening: Whitening, batch: PatientBatch, secret: SecretStream
) -> tuple[Tensor, Tensor]:
    """Whitened images [P * m, C, S, S] of a batch's records, on the CPU, and their components [P * m]."""
    components = components_of(job.plan, job.site, batch.labels)
    return whitening.white(whitening.spread(batch.images, secret), components), components

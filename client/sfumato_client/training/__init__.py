"""Stage trainers, one a file; each turns a cohort into one differentially private message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays


class TrainingCohort(Protocol):
    """What a trainer may see of the data: patients by number, and their images."""

    @property
    def patients(self) -> int:
        """Exact number of patients; never leaves the site, and never sets a rate or a denominator."""
        ...

    def images_of(self, patient: int) -> tuple[AnyArray, npt.NDArray[np.int64]]:
        """Images [m, S, S(, 3)] and labels [m] of one patient."""
        ...

    def everything(self) -> tuple[AnyArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Images [N, S, S(, 3)], labels [N], patient_index [N]."""
        ...


@dataclass(frozen=True)
class StageJob:
    """One round of one stage at one site; the spend is reserved in the ledger before a job is made.

    Everything that leaves goes through `recorder`; `noise` is for what stays, such as the patients of a batch. What a
    trainer returns is sealed under the charge by its caller.
    """

    plan: Plan
    site: str
    kind: str
    round: int
    inbound: Arrays
    cohort: TrainingCohort
    noise: NoiseSource
    recorder: NoiseRecorder


def _spectral(job: StageJob) -> Arrays:
    from sfumato_client.training.spectral import release_moments

    return release_moments(job)


def _embedding(job: StageJob) -> Arrays:
    from sfumato_client.training.embedding import release_embedding

    return release_embedding(job)


def _gan(job: StageJob) -> Arrays:
    from sfumato_client.training.gan import train_discriminator

    return train_discriminator(job)


def _flow(job: StageJob) -> Arrays:
    from sfumato_client.training.flow import train_flow

    return train_flow(job)


def _choice(job: StageJob) -> Arrays:
    from sfumato_client.training.choice import score_candidates

    return score_candidates(job)


# Imports wait for their stage: every message runs in a fresh process, and Opacus costs it seconds.
TRAINERS: dict[str, Callable[[StageJob], Arrays]] = {
    "spectral": _spectral,
    "embedding": _embedding,
    "gan": _gan,
    "choice": _choice,
    "flow": _flow,
}

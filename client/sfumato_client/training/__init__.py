"""Stage trainers, one a file; each turns a cohort into one differentially private message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.base import import_named
from sfumato_common.generators.settings import StageSettings
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays

if TYPE_CHECKING:
    from sfumato_client.training.dp.shared import Ranks
    from sfumato_common.encoders.encoder import Encoder


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


S_co = TypeVar("S_co", bound=StageSettings, covariant=True)


@dataclass(frozen=True)
class StageJob(Generic[S_co]):
    """One round of one stage at one site; the spend is reserved in the ledger before a job is made.

    Everything that leaves goes through `recorder`; `noise` is for what stays, such as the patients of a batch. What a
    trainer returns is sealed under the charge by its caller. `encoders` are the given ones that the stage names, and
    `ranks` what shares the steps of DP-SGD (None: this process alone).
    """

    plan: Plan
    site: str
    stage: S_co
    round: int
    inbound: Arrays
    cohort: TrainingCohort
    noise: NoiseSource
    recorder: NoiseRecorder
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    ranks: Ranks | None = None


def train(job: StageJob[StageSettings]) -> Arrays:
    """What the trainer of the job's stage releases, which its record names.

    Its import waits for its stage: every message runs in a fresh process, and Opacus costs it seconds.
    """
    trainer: Callable[[StageJob[StageSettings]], Arrays] = import_named(EXCHANGES[job.stage.kind].trainer)
    return trainer(job)

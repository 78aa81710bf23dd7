"""One thing that a request asks of patients: what it is charged as, what may leave, how it is checked and done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sfumato_client.dataset import Cohort as PatientCohort
from sfumato_client.ledger.charged import Terms
from sfumato_common.accounting.events import Cohort, Event
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.protocol.messages import Request
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, Schema

# opens the cohort, within the charge
Opened = Callable[[], PatientCohort]


@dataclass(frozen=True)
class Work:
    """`check` runs before the charge; `compute` is given what opens the cohort, the charge's recorder, and noise.

    The last is for what stays.
    """

    purpose: str
    event: Event
    cohort: Cohort
    schema: Schema
    check: Callable[[], None]
    compute: Callable[[Opened, NoiseRecorder, NoiseSource], Arrays]

    def terms(self, plan: Plan, request: Request) -> Terms:
        """Where its charge stands in the ledger."""
        return Terms.of(plan, self.purpose, max(request.round, 1), self.cohort)

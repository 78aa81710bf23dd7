"""What a question asks a site to do, and where that may be done: here, or by a job that somebody else starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sfumato_client.dataset import Cohort as PatientCohort
from sfumato_client.ledger import Terms
from sfumato_common import errors
from sfumato_common.accounting.events import Cohort, Event
from sfumato_common.errors import SfumatoError
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.protocol.messages import Request
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, Schema

# does the work of a question in another process, which leaves in the home what is to be sent: the code of its refusal,
# "" for none. Raises WorkerLost where that process ended without a word.
Elsewhere = Callable[[Request], str]
# opens the cohort, within the charge
Opened = Callable[[], PatientCohort]


@dataclass(frozen=True)
class Work:
    """One thing that a request asks for: what it is charged as, what may leave, and how it is checked and done.

    `check` runs before the charge; `compute` is given what opens the cohort, the charge's recorder, and noise for what
    stays.
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


def error_of(code: str) -> SfumatoError:
    """The error that a job ended with, by the code that its own refusal had."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SfumatoError)]
    found = next((kind for kind in kinds if kind.wire_code == code), SfumatoError)
    return found("the launched job refused; the newest file of 'local/errors' in the home has all")

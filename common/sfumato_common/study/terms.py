"""What a plan states beside its stages and its release: its budget, its figure, and when a round counts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.generators.settings import Positive
from sfumato_common.strict import Strict


class PrivacyTerms(Strict):
    """The largest (epsilon, delta) the whole study may cost a patient; the unit is the patient, always."""

    epsilon: Positive
    delta: Annotated[float, Field(gt=0, lt=0.01)]
    unit: Literal["patient"] = "patient"
    adjacency: Literal["add-remove"] = "add-remove"


class UtilityTerms(Strict):
    """TSTR figure: each site's holdout patients' classifier scores as a noisy histogram of `bins` per class."""

    bins: Annotated[int, Field(ge=4, le=64)] = 10
    noise_multiplier: Positive


class FederationTerms(Strict):
    """When a round counts: at least `quorum` sites within `round_deadline_s` seconds."""

    quorum: Annotated[int, Field(ge=1)]
    round_deadline_s: Annotated[int, Field(ge=10, le=86_400)] = 300
    join_deadline_s: Annotated[int, Field(ge=5, le=86_400)] = 120

"""The one form of what a site states about a release's price: written by its ledger, read by everybody, strictly.

A site may be hostile: every number is finite and bounded, every text printable and short, every mechanism a known one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from sfumato_common.accounting.accountant import count_mechanisms
from sfumato_common.accounting.events import Cohort, Declared, Mechanism, event_from_json
from sfumato_common.errors import LedgerError
from sfumato_common.generators.settings import PublicStart
from sfumato_common.strict import Strict

# null stands for infinite, which JSON has no number for; beyond the bound an epsilon promises no more than that
Epsilon = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None
Noise = Literal["secure", "test"]
Protection = Literal["differential privacy", "weights left without differential privacy"]


def _check_printable(text: str) -> str:
    """No control character, and none that turns the direction of what is read."""
    if not text.isprintable():
        raise ValueError("a text holds characters that cannot be printed")
    return text


Text = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_check_printable)]
LongText = Annotated[str, Field(min_length=1, max_length=8000), AfterValidator(_check_printable)]


class StatedDisclosure(Strict):
    """A disclosure that no epsilon covers."""

    what: Text
    bits: Annotated[int, Field(ge=1, le=10**15)]


class StatedCost(Strict):
    """Epsilons under both adjacencies, and the looser bound by Renyi divergences that cross-checks the first."""

    add_remove: Epsilon
    add_remove_rdp: Epsilon
    replace_one: Epsilon


class StatedCosts(Strict):
    """What each cohort of the site pays, and the most that any one of its patients does."""

    train: StatedCost
    holdout: StatedCost
    patient: StatedCost


class Certificate(Strict):
    """A site's certificate, whole: epsilons at `delta` for one patient more, less or replaced, and what they cover.

    `mechanisms` are events as JSON with how often they ran: `times`, or `steps` of DP-SGD. `starts` are the public
    weights that stages of the plan began with, as the plan declares them.
    """

    epsilon: StatedCosts
    delta: Annotated[float, Field(gt=0, lt=1)]
    unit: Literal["patient"]
    adjacency: Literal["add-remove"]
    mechanisms: dict[Cohort, Annotated[list[dict[str, Any]], Field(max_length=1000)]]
    declared: Annotated[list[StatedDisclosure], Field(max_length=100)]
    noise: Noise
    covers: LongText
    protection: Protection = "differential privacy"
    starts: dict[Text, PublicStart] = Field(default_factory=dict, max_length=100)

    @field_validator("mechanisms")
    @classmethod
    def _check_known(cls, mechanisms: dict[Cohort, list[dict[str, Any]]]) -> dict[Cohort, list[dict[str, Any]]]:
        for line in (line for lines in mechanisms.values() for line in lines):
            try:
                stated_tally([line])
            except LedgerError as error:
                raise ValueError(str(error)) from None
            for value in line.values():
                if isinstance(value, str):
                    _check_printable(value[:300])
                    if len(value) > 300:
                        raise ValueError("a mechanism's text is too long")
        return mechanisms

    @model_validator(mode="after")
    def _check_consistent(self) -> Certificate:
        costs = (self.epsilon.train, self.epsilon.holdout, self.epsilon.patient)
        infinite = any(value is None for cost in costs for value in cost.model_dump().values())
        bare = any(line.get("mechanism") == "Unprotected" for lines in self.mechanisms.values() for line in lines)
        if not infinite == bare == (not self.private):
            raise ValueError("epsilons are infinite where, and only where, something left without differential privacy")
        return self

    @property
    def private(self) -> bool:
        """Whether everything that left was clipped and noised."""
        return self.protection == "differential privacy"

    @property
    def formal(self) -> bool:
        """Whether the epsilons mean anything: everything was noised, with noise that nobody can predict."""
        return self.private and self.noise == "secure"


def stated_tally(lines: Iterable[Mapping[str, Any]]) -> Counter[Mechanism]:
    """A certificate's `mechanisms` of one cohort, counted. Raises LedgerError for a line that no certificate has."""
    tally: Counter[Mechanism] = Counter()
    for line in lines:
        fields = dict(line)
        times = fields.pop("times", 1)
        event = event_from_json(fields)
        if isinstance(event, Declared) or type(times) is not int or not 1 <= times <= 10**15:
            raise LedgerError("a certificate's mechanism is none, or ran an impossible number of times")
        for single, steps in count_mechanisms([event]).items():
            tally[single] += steps * times
    return tally

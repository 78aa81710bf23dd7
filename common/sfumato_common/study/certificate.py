"""The one form of what a site states about a release's price: written by its ledger, read by everybody, strictly.

A site may be hostile: every number is finite and bounded, every text printable and short, every mechanism a known one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from sfumato_common.accounting.accountant import CohortCosts, Cost, cohort_costs, count_mechanisms
from sfumato_common.accounting.events import Cohort, Declared, Event, Mechanism, event_from_json, seen_with
from sfumato_common.accounting.tradeoff import reach
from sfumato_common.encoders.settings import EncoderTerms
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


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class EpsilonAt(Strict):
    """Epsilon at another delta."""

    delta: Annotated[float, Field(gt=0, lt=1)]
    epsilon: Epsilon


class TprAt(Strict):
    """The largest true-positive rate of any attack at a false-positive rate."""

    fpr: Share
    tpr: Share


class StatedReach(Strict):
    """What any attack on one patient can reach at most, under add/remove; `accounting/tradeoff.py` says how.

    `mu`: up to the stated epsilon, one Gaussian release with this parameter has no smaller delta anywhere; it says
    nothing of deltas below the stated one. `auc` and `attack` are ceilings of the area under an attack's curve and of
    its true-positive rates. `pair` is epsilon at the stated delta where two patients come or go together.
    """

    mu: Epsilon
    epsilons: Annotated[list[EpsilonAt], Field(max_length=100)]
    auc: Share
    attack: Annotated[list[TprAt], Field(max_length=100)]
    pair: Epsilon


class StatedSums(Strict):
    """What the releases that left as secure sums cost a patient, by who looks.

    A certificate's `epsilon` is against the coordinator together with any `colluding` of the other sites, and counts
    on the other honest ones of at least `sites` in every sum. `coordinator` is against the coordinator alone, `alone`
    against the coordinator and all other sites together: there only the site's own noise protects.
    """

    sites: Annotated[int, Field(ge=2, le=256)]
    colluding: Annotated[int, Field(ge=1, le=127)]
    coordinator: StatedCosts
    alone: StatedCosts


class StatedTraining(Strict):
    """What the earlier study cost a patient whose models a release is made from: the whole study, at its delta.

    A patient of that study and of this one pays both; the site's ledger composes them, and no figure here does.
    """

    plan_hash: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    epsilon: StatedCosts
    delta: Annotated[float, Field(gt=0, lt=1)]


class Certificate(Strict):
    """A site's certificate, whole: epsilons at `delta` for one patient more, less or replaced, and what they cover.

    `mechanisms` are events as JSON with how often they ran: `times`, or `steps` of DP-SGD. `starts` are the public
    weights that stages of the plan began with, as the plan declares them, `encoders` the public networks in whose
    features stages and methods worked. `reach` is about the patient who pays most,
    and absent where something left without privacy. `summed` is there where releases left as sums. `site_total` stands
    only where the site's policy publishes it: what
    its patients pay for all its studies and tables up to now, this one whole.
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
    encoders: dict[Text, EncoderTerms] = Field(default_factory=dict, max_length=100, exclude_if=lambda given: not given)
    reach: StatedReach | None = None
    site_total: StatedCosts | None = None
    summed: StatedSums | None = Field(default=None, exclude_if=lambda given: given is None)
    # where models were given: what their training cost, which is in no epsilon above
    trained: StatedTraining | None = Field(default=None, exclude_if=lambda given: given is None)

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


def stated_costs(costs: CohortCosts) -> StatedCosts:
    """Epsilons to four decimals, upwards: a printed guarantee never promises more than was proved. None: infinite."""
    train, holdout, patient = (_stated_cost(cost) for cost in (costs.train, costs.holdout, costs.patient))
    return StatedCosts(train=train, holdout=holdout, patient=patient)


def stated_sums(
    train: Sequence[Event], holdout: Sequence[Event], delta: float, sites: int, colluding: int
) -> StatedSums:
    """What parts of sums cost by who looks, of sums of at least `sites`."""

    def against(noises: int) -> StatedCosts:
        seen, other = ([seen_with(event, noises) for event in _mechanisms(events)] for events in (train, holdout))
        return stated_costs(cohort_costs(seen, other, delta))

    return StatedSums(sites=sites, colluding=colluding, coordinator=against(sites), alone=against(1))


def _mechanisms(events: Iterable[Event]) -> list[Mechanism]:
    return [event for event in events if not isinstance(event, Declared)]


def _stated_cost(cost: Cost) -> StatedCost:
    return StatedCost(**{name: round_up_epsilon(value) for name, value in asdict(cost).items()})


def stated_reach(train: Sequence[Event], holdout: Sequence[Event], delta: float) -> StatedReach:
    """What an attack can reach, to four decimals, upwards; None: infinite."""
    found = reach(train, holdout, delta)
    return StatedReach(
        mu=round_up_epsilon(found.mu),
        epsilons=[EpsilonAt(delta=at, epsilon=round_up_epsilon(value)) for at, value in found.epsilon_at.items()],
        auc=min(1.0, round_up_epsilon(found.auc) or 1.0),
        attack=[TprAt(fpr=at, tpr=min(1.0, round_up_epsilon(value) or 1.0)) for at, value in found.tpr.items()],
        pair=round_up_epsilon(found.pair),
    )


def round_up_epsilon(value: float) -> float | None:
    """To four decimals, upwards: what is printed never promises more than was proved. None: infinite."""
    return None if math.isinf(value) else math.ceil(value * 1e4) / 1e4

"""The one form of what a site states about a release's price: written by its ledger, read by everybody, strictly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sfumato_common.accounting.events import Cohort
from sfumato_common.generators.settings import PublicStart
from sfumato_common.strict import Strict

# null stands for infinite, which JSON has no number for
Epsilon = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
Noise = Literal["secure", "test"]
Protection = Literal["differential privacy", "weights left without differential privacy"]


class StatedDisclosure(Strict):
    """A disclosure that no epsilon covers."""

    what: str
    bits: int


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
    epsilons: list[EpsilonAt]
    auc: Share
    attack: list[TprAt]
    pair: Epsilon


class Certificate(Strict):
    """A site's certificate, whole: epsilons at `delta` for one patient more, less or replaced, and what they cover.

    `mechanisms` are events as JSON with how often they ran: `times`, or `steps` of DP-SGD. `starts` are the public
    weights that stages of the plan began with, as the plan declares them. `reach` is about the patient who pays most,
    and absent where something left without privacy. `site_total` stands only where the site's policy publishes it: what
    its patients pay for all its studies and tables up to now, this one whole.
    """

    epsilon: StatedCosts
    delta: Annotated[float, Field(gt=0, lt=1)]
    unit: Literal["patient"]
    adjacency: Literal["add-remove"]
    mechanisms: dict[Cohort, list[dict[str, Any]]]
    declared: list[StatedDisclosure]
    noise: Noise
    covers: str
    protection: Protection = "differential privacy"
    starts: dict[str, PublicStart] = Field(default_factory=dict)
    reach: StatedReach | None = None
    site_total: StatedCosts | None = None

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

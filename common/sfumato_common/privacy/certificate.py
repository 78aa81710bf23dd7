"""The one form of what a site states about a release's price: written by its ledger, read by everybody, strictly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sfumato_common.config.loader import Strict
from sfumato_common.privacy.events import Cohort

Epsilon = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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


class Certificate(Strict):
    """A site's certificate, whole: epsilons at `delta` for one patient more, less or replaced, and what they cover.

    `mechanisms` are events as JSON with how often they ran: `times`, or `steps` of DP-SGD.
    """

    unit: Literal["patient"]
    adjacency: Literal["add-remove"]
    delta: Annotated[float, Field(gt=0, lt=1)]
    epsilon: StatedCosts
    mechanisms: dict[Cohort, list[dict[str, Any]]]
    declared: list[StatedDisclosure]
    noise: Literal["secure", "test"]
    covers: str

    @property
    def formal(self) -> bool:
        """Whether the noise was drawn so that the epsilons mean anything."""
        return self.noise == "secure"

"""Stages of one exchange whose fit to the sites' releases is the model: what their strategies share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic

import torch

from sfumato_common.errors import FederationError
from sfumato_common.generators.settings import S
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies import Sum
from sfumato_server.rounds.strategies.averaging import check_replies


class OneShotStrategy(ABC, Generic[S]):
    """One exchange: sums of patients' contributions add up, whatever the sites' sizes, so nothing is weighted."""

    def __init__(self, plan: Plan, stage: S, released: Mapping[str, Arrays]) -> None:
        self._plan, self._stage = plan, stage
        self._before = dict(released[plan.base]) if plan.base in released else {}
        self._model: dict[str, AnyArray] = {}

    @abstractmethod
    def fit(self, replies: Mapping[str, Arrays], noise_multiplier: float) -> Arrays:
        """The model of the releases of all sites that answered, each with that noise, without its stage's name."""

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """Nothing: sites work from the plan alone."""
        return {}

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """Fit the model to the releases of all sites that answered."""
        check_replies(self._plan, self._stage, replies)
        self._take(self.fit(replies, self._stage.noise_multiplier))

    def absorb_sum(self, release: Arrays, about: Sum, generator: torch.Generator) -> None:
        """Fit the model to the sum over sites, as to the release of one site."""
        self._take(self.fit({"sum": release}, about.noise_multiplier))

    def _take(self, fitted: Arrays) -> None:
        self._model = {f"{self._stage.kind}/{name}": value for name, value in fitted.items()}

    def released(self) -> dict[str, AnyArray]:
        """The fitted model, with the one that the plan begins with. Raises FederationError before the exchange."""
        if not self._model:
            raise FederationError(f"the {self._stage.kind} stage has not run; run it first")
        return {**self._before, **self._model}

    def state(self) -> dict[str, AnyArray]:
        """The fitted model."""
        return dict(self._model)

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._model = dict(state)

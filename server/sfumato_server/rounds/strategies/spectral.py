"""Spectral stage at the coordinator: pool the sites' one-shot releases and fit the Gaussian model to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sfumato_common.errors import FederationError
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.settings import SpectralStage
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import check_replies


class SpectralStrategy:
    """One exchange: sums of patients' contributions add up, whatever the sites' sizes, so nothing is weighted."""

    def __init__(self, plan: Plan, stage: SpectralStage, released: Mapping[str, Arrays]) -> None:
        del released  # the first stage has nothing before it
        self._plan, self._stage = plan, stage
        self._model: dict[str, AnyArray] = {}

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """Nothing: sites work from the plan alone."""
        return {}

    def absorb(self, round_number: int, replies: dict[str, dict[str, AnyArray]], generator: torch.Generator) -> None:
        """Fit the model to the releases of all sites that answered."""
        check_replies(self._plan, self._stage, replies)
        fitted = fit_release(self._plan, replies)
        self._model = {f"spectral/{name}": value for name, value in fitted.items()}

    def released(self) -> dict[str, AnyArray]:
        """The fitted model. Raises FederationError before the exchange."""
        if not self._model:
            raise FederationError("the spectral stage has not run; run it first")
        return dict(self._model)

    def state(self) -> dict[str, AnyArray]:
        """The fitted model."""
        return dict(self._model)

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._model = dict(state)

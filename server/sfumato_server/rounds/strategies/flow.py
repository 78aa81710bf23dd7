"""Flow stage at the coordinator: the sites' updates of one flow, averaged."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sfumato_common.generators.flow.networks import flow
from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.generators.starts import starting_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import check_replies, move_start
from sfumato_server.rounds.strategies.optimisers import ServerStep


class FlowStrategy:
    """Starts from the identity, so that before the first round the model is the plan's first one itself."""

    def __init__(self, plan: Plan, stage: FlowStage, released: Mapping[str, Arrays]) -> None:
        self._plan, self._stage, self._server = plan, stage, ServerStep(stage.server)
        self._first = dict(released[plan.base])
        self._flow = to_arrays("flow", starting_model("flow", flow, plan, stage, released))

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """The plan's first model and the current flow."""
        return {**self._first, **self._flow}

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """The flow follows the public-weighted mean of the updates, as the plan's `server` says."""
        check_replies(self._plan, self._stage, replies)
        self._flow = move_start(self._plan, self._flow, replies, self._server)

    def released(self) -> dict[str, AnyArray]:
        """The plan's first model and the flow."""
        return {**self._first, **self._flow}

    def state(self) -> dict[str, AnyArray]:
        """The flow's weights and the server optimiser's moments."""
        return {**self._flow, **self._server.state()}

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._flow = {name: value for name, value in state.items() if name.startswith("flow/")}
        self._server.restore(state)

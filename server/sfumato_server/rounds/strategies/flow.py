"""Flow stage at the coordinator: average the sites' flows, which all started the round from the same weights."""

from __future__ import annotations

import torch

from sfumato_common.config.plan import Plan
from sfumato_common.models.build import initial_model, to_arrays
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import check_replies, weighted_average


class FlowStrategy:
    """Starts from the identity, so that before the first round the model is the spectral release itself."""

    def __init__(self, plan: Plan, released: dict[str, dict[str, AnyArray]]) -> None:
        self._plan = plan
        self._spectral = dict(released["spectral"])
        self._flow = to_arrays("flow", initial_model("flow", plan))

    def outbound(self, round_number: int) -> dict[str, AnyArray]:
        """The spectral release and the current flow."""
        return {**self._spectral, **self._flow}

    def absorb(self, round_number: int, replies: dict[str, dict[str, AnyArray]], generator: torch.Generator) -> None:
        """The public-weighted mean of the replies becomes the flow."""
        check_replies(self._plan, "flow", replies)
        self._flow = weighted_average(self._plan, replies)

    def released(self) -> dict[str, AnyArray]:
        """The spectral release and the flow."""
        return {**self._spectral, **self._flow}

    def state(self) -> dict[str, AnyArray]:
        """The flow's weights."""
        return dict(self._flow)

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._flow = dict(state)

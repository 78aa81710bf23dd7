"""Diffusion stage at the coordinator: the sites' updates of one adapter, averaged; the denoiser stays as it began.

What is released is an exponential moving average of the adapter over the rounds (DPDM: Dockhorn et al. 2023, section
3.3), which is post-processing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from sfumato_common.errors import FederationError
from sfumato_common.generators.diffusion.networks import ADAPTER, DENOISER, adapter, denoiser
from sfumato_common.generators.diffusion.settings import DiffusionStage
from sfumato_common.generators.starts import starting_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import check_replies, move_start
from sfumato_server.rounds.strategies.optimisers import ServerStep

_HORIZON = 0.3  # of the stage's rounds, over which the average reaches
_AVERAGE, _ROUNDS = "average/", "averaged"


class DiffusionStrategy:
    """Starts from the pinned public weights; the average is of what rounds led to, never of the start."""

    def __init__(self, plan: Plan, stage: DiffusionStage, released: Mapping[str, Arrays]) -> None:
        self._plan, self._stage, self._server = plan, stage, ServerStep(stage.server)
        self._first = dict(released[plan.base])
        self._denoiser = to_arrays(DENOISER, starting_model(DENOISER, denoiser, plan, stage, released))
        self._adapter = to_arrays(ADAPTER, starting_model(ADAPTER, adapter, plan, stage, released))
        self._average, self._rounds = dict(self._adapter), 0

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """The plan's first model, the denoiser and the current adapter."""
        return {**self._first, **self._denoiser, **self._adapter}

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """The adapter follows the public-weighted mean of the updates, as the plan's `server` says."""
        check_replies(self._plan, self._stage, replies)
        self._adapter = move_start(self._plan, self._adapter, replies, self._server)
        self._rounds += 1
        rate = 1.0 / max(1.0, _HORIZON * self._stage.rounds)
        share = rate / (1.0 - (1.0 - rate) ** self._rounds)
        self._average = {
            name: ((1.0 - share) * self._average[name] + share * value).astype(np.float32)
            for name, value in self._adapter.items()
        }

    def released(self) -> dict[str, AnyArray]:
        """The plan's first model, the denoiser and the averaged adapter."""
        if not self._rounds:
            raise FederationError("no round of the diffusion stage is over yet; let the study go on")
        return {**self._first, **self._denoiser, **self._average}

    def state(self) -> dict[str, AnyArray]:
        """The adapter, its average and how many rounds that is of, and the server optimiser's moments."""
        average = {_AVERAGE + name: value for name, value in self._average.items()}
        rounds = {_ROUNDS: np.array(self._rounds, np.int64)}
        return {**self._adapter, **average, **rounds, **self._server.state()}

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._adapter = {name: value for name, value in state.items() if name.startswith(f"{ADAPTER}/")}
        self._average = {
            name.removeprefix(_AVERAGE): value for name, value in state.items() if name.startswith(_AVERAGE)
        }
        self._rounds = int(state[_ROUNDS])
        self._server.restore(state)

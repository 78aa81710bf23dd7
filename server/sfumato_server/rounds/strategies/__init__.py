"""How the coordinator turns noised replies into the next model, one strategy a stage; all of it is post-processing.

A strategy is told nothing but the plan, the released arrays of earlier stages and the sites' replies. Sites weigh
by the plan's nominal patients, never by a count.
"""

from __future__ import annotations

from typing import Protocol

import torch

from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.choice import ChoiceStrategy
from sfumato_server.rounds.strategies.embedding import EmbeddingStrategy
from sfumato_server.rounds.strategies.flow import FlowStrategy
from sfumato_server.rounds.strategies.gan import GanStrategy
from sfumato_server.rounds.strategies.spectral import SpectralStrategy


class Strategy(Protocol):
    """One stage at the coordinator; rounds are numbered from 1."""

    def __init__(self, plan: Plan, released: dict[str, dict[str, AnyArray]]) -> None:
        """`released` holds the final arrays of earlier stages by kind, and pinned starts by `start_key(kind)`."""
        ...

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """What that site is sent in that round, by `inbound_schema`."""
        ...

    def absorb(self, round_number: int, replies: dict[str, dict[str, AnyArray]], generator: torch.Generator) -> None:
        """Take the replies by site. Raises VerificationError when one misfits `outbound_schema` or is not finite."""
        ...

    def released(self) -> dict[str, AnyArray]:
        """The stage's final model by `released_schema`. Raises FederationError before a round was absorbed."""
        ...

    def state(self) -> dict[str, AnyArray]:
        """Everything needed to go on after a restart, as arrays."""
        ...

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        ...


STRATEGIES: dict[str, type[Strategy]] = {
    "spectral": SpectralStrategy,
    "embedding": EmbeddingStrategy,
    "gan": GanStrategy,
    "flow": FlowStrategy,
    "choice": ChoiceStrategy,
}

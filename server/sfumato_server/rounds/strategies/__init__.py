"""How the coordinator turns noised replies into the next model, one strategy a stage; all of it is post-processing.

A strategy is told nothing but the plan, the released arrays of earlier stages and the sites' replies. Sites weigh
by the plan's nominal patients, never by a count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch

from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.base import import_named
from sfumato_common.generators.settings import StageSettings
from sfumato_common.metrics.choice import Choice
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays


class Strategy(Protocol):
    """One stage at the coordinator; rounds are numbered from 1. It is made from the plan, its stage and `released`."""

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """What that site is sent in that round, by its record's `sent`."""
        ...

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """Take the replies by site. Raises VerificationError when one misfits `returned` or is not finite."""
        ...

    def released(self) -> dict[str, AnyArray]:
        """The stage's final model by its record's `released`. Raises FederationError before a round was absorbed."""
        ...

    def state(self) -> dict[str, AnyArray]:
        """Everything needed to go on after a restart, as arrays."""
        ...

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        ...


@runtime_checkable
class Choosing(Protocol):
    """A strategy whose stage says which model serves best."""

    def choice(self) -> Choice:
        """What was chosen. Raises FederationError before the exchange."""
        ...


class Sum(Protocol):
    """What is known of a sum over sites beside itself."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose patients are in it."""
        ...

    @property
    def noise_multiplier(self) -> float:
        """Of the noise in it, as of one release."""
        ...


@runtime_checkable
class Summing(Protocol):
    """A strategy that goes on from one sum over sites instead of their replies."""

    def absorb_sum(self, release: Arrays, about: Sum, generator: torch.Generator) -> None:
        """Take the sum, which has the form of one site's reply."""
        ...


def made_again(plan: Plan, stage: StageSettings, released: Mapping[str, Arrays], state: Arrays | None) -> Strategy:
    """The strategy of `stage` in `state` (None: before its first round) under `plan`, which has more sites: as after a
    restart."""
    strategy = strategy_of(plan, stage, released)
    if state is not None:
        strategy.restore(state)
    return strategy


def strategy_of(plan: Plan, stage: StageSettings, released: Mapping[str, Arrays]) -> Strategy:
    """The strategy of `stage`, which its record names.

    `released` holds the final arrays of earlier stages by kind, pinned starts by `start_key(kind)`, and files of given
    encoders by `encoder_key(name)`.
    """
    make: Callable[[Plan, StageSettings, Mapping[str, Arrays]], Strategy] = import_named(EXCHANGES[stage.kind].strategy)
    return make(plan, stage, released)

"""How far honest training can move a weight: the bounds that generators state in their records, and how they are held.

Adam's step is bounded whatever the gradients are (Kingma and Ba 2015, section 2.1; here by Cauchy-Schwarz): with v_t a
running mean of squares, |m_t| <= (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) sqrt(v_t). A proximal term changes gradients
only, so that it changes no bound. A coordinator that follows the sites' mean update by the plan's optimiser, and trains
its generator as the plan says, cannot leave this reach; one that crafts weights does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import DpSgdStage, ServerOptimiser, stage_of
from sfumato_common.types import Arrays

Betas = tuple[float, float]
# FedAdam's second decay and the constant beside its root, as Reddi et al. (2021) used them throughout
SERVER_SECOND_MOMENT = 0.99
SERVER_ADAPTIVITY = 1e-3
# bfloat16 may round every site's update up by 2^-8 of it; the rest is float32 arithmetic on both sides
_ROUNDING = 1.0 + 2.0**-7
_ARITHMETIC = 1e-5


def adam_step(betas: Betas) -> float:
    """The largest step of Adam in units of the learning rate; the correction of its start only shortens it."""
    first, second = betas
    return (1.0 - first) / math.sqrt((1.0 - second) * (1.0 - first**2 / second))


def adam_displacement(steps: int, learning_rate: float, betas: Betas) -> float:
    """The most that so many steps of Adam change a weight, with what rounding adds."""
    return steps * learning_rate * adam_step(betas) * _ROUNDING


def update_displacement(stage: DpSgdStage, betas: Betas) -> float:
    """The most that a site changes a weight in one round: what its update may hold."""
    return adam_displacement(stage.local_steps, stage.learning_rate, betas)


def check_of_updates(settings: type[DpSgdStage], betas: Betas) -> Callable[[PublicPlan, str, Arrays], None]:
    """The `check_reply` of a stage whose sites train by Adam: no update is above `update_displacement`."""

    def check(plan: PublicPlan, site: str, arrays: Arrays) -> None:
        from sfumato_common.generators.update import check_update

        check_update(arrays, update_displacement(stage_of(plan, settings), betas))

    return check


def federated_displacement(stage: DpSgdStage, betas: Betas, rounds: int) -> float:
    """The most that `rounds` rounds change a weight that sites train by Adam and the coordinator by `stage.server`."""
    return rounds * server_step(stage.server, update_displacement(stage, betas), stage.rounds)


def server_step(server: ServerOptimiser, update: float, rounds: int) -> float:
    """The most that one round of `server` changes a weight when no update among `rounds` of them is above `update`."""
    if server.kind == "average":
        return server.learning_rate * update
    if server.kind == "momentum":
        return server.learning_rate * update * sum(server.momentum**age for age in range(rounds))
    # |m| is at most the largest update, too: where updates are small beside the adaptivity that is the tighter bound
    steepest = min(adam_step((server.momentum, SERVER_SECOND_MOMENT)), update / SERVER_ADAPTIVITY)
    return server.learning_rate * steepest * _ROUNDING


def within_displacement(before: Arrays, after: Arrays, distance: float) -> bool:
    """Whether every weight of `after` lies within `distance` of its value in `before`; names and shapes agree."""
    return all(
        bool((np.abs(value - before[name]) <= distance + _ARITHMETIC * (1.0 + np.abs(before[name]))).all())
        for name, value in after.items()
    )

"""How far honest training can move a weight: what a site holds inbound weights against.

Adam's step is bounded whatever the gradients are (Kingma and Ba 2015, section 2.1; here by Cauchy-Schwarz): with v_t a
running mean of squares, |m_t| <= (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) sqrt(v_t). A proximal term changes gradients
only, so that it changes no bound. A coordinator that follows the sites' mean update by the plan's optimiser, and trains
its generator as the plan says, cannot leave this reach; one that crafts weights does.
"""

from __future__ import annotations

import math

import numpy as np

from sfumato_common.study.plan import Plan
from sfumato_common.study.stages import DpSgdStage, EmbeddingStage, GanStage, ServerOptimiser
from sfumato_common.types import Arrays

Betas = tuple[float, float]
SITE_BETAS: dict[str, Betas] = {"gan": (0.5, 0.99), "flow": (0.9, 0.99)}
GENERATOR_BETAS: Betas = (0.5, 0.99)
GENERATOR_LEARNING_RATE = 2e-4
EMBEDDING_LEARNING_RATE = 1e-3  # of the generator that is fitted to an embedding: there is no opponent to outrun
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


def max_displacement(stage: DpSgdStage | EmbeddingStage, model: str, rounds: int) -> float:
    """The most that `rounds` rounds of `stage` can change any weight of `model` ('generator', or what sites train)."""
    if model == "generator":
        assert isinstance(stage, GanStage | EmbeddingStage)
        rate = GENERATOR_LEARNING_RATE if isinstance(stage, GanStage) else EMBEDDING_LEARNING_RATE
        return rounds * stage.generator_steps * rate * adam_step(GENERATOR_BETAS) * _ROUNDING
    assert isinstance(stage, DpSgdStage)
    kind = "gan" if isinstance(stage, GanStage) else "flow"
    update = stage.local_steps * stage.learning_rate * adam_step(SITE_BETAS[kind]) * _ROUNDING
    return rounds * server_step(stage.server, update, stage.rounds)


def start_displacement(plan: Plan, kind: str, model: str) -> float:
    """How far from its public start stage `kind` may begin to train `model`: as far as an earlier stage can fit it."""
    stage = plan.stage(kind)
    if model != "generator" or not isinstance(stage, GanStage) or stage.generator_start == "spectral":
        return 0.0
    fitted = plan.stage("embedding")
    assert isinstance(fitted, EmbeddingStage)
    return max_displacement(fitted, model, fitted.rounds)


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

"""How fast a flow can move: sites train it by Adam."""

from __future__ import annotations

from sfumato_common.generators.displacement import Betas, federated_displacement
from sfumato_common.generators.flow.settings import FlowStage

BETAS: Betas = (0.9, 0.99)


def max_displacement(stage: FlowStage, network: str, rounds: int) -> float:
    """The most that `rounds` rounds of `stage` can change any weight of 'flow'."""
    assert network == "flow"
    return federated_displacement(stage, BETAS, rounds)

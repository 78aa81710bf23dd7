"""How fast a diffusion's adapter can move: sites train it by Adam; its denoiser stays where it began."""

from __future__ import annotations

from sfumato_common.generators.diffusion.networks import ADAPTER, NETWORKS
from sfumato_common.generators.diffusion.settings import DiffusionStage
from sfumato_common.generators.displacement import Betas, federated_displacement

BETAS: Betas = (0.9, 0.99)


def max_displacement(stage: DiffusionStage, network: str, rounds: int) -> float:
    """The most that `rounds` rounds of `stage` can change any weight of a network; averages of them go no further."""
    assert network in NETWORKS
    return federated_displacement(stage, BETAS, rounds) if network == ADAPTER else 0.0

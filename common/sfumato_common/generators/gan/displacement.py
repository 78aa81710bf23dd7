"""How fast the networks of a GAN stage can move: both learn by Adam, one at the sites, one at the coordinator."""

from __future__ import annotations

from sfumato_common.generators.displacement import Betas, adam_displacement, federated_displacement
from sfumato_common.generators.gan.settings import GanStage

SITE_BETAS: Betas = (0.5, 0.99)
GENERATOR_BETAS: Betas = (0.5, 0.99)
GENERATOR_LEARNING_RATE = 2e-4


def max_displacement(stage: GanStage, network: str, rounds: int) -> float:
    """The most that `rounds` rounds of `stage` can change any weight of 'generator' or 'discriminator'."""
    if network == "generator":
        return adam_displacement(rounds * stage.generator_steps, GENERATOR_LEARNING_RATE, GENERATOR_BETAS)
    assert network == "discriminator"
    return federated_displacement(stage, SITE_BETAS, rounds)

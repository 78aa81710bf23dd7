"""How fast the networks of a StyleGAN2 stage can move: both learn by Adam, at the sites or at the coordinator."""

from __future__ import annotations

from sfumato_common.generators.displacement import Betas, adam_displacement, federated_displacement
from sfumato_common.generators.stylegan2.networks import DISCRIMINATOR, GENERATOR
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage

BETAS: Betas = (0.0, 0.99)
LEARNING_RATE = 2e-3  # of the generator at the coordinator, and of public starts


def max_displacement(stage: StyleGan2Stage, network: str, rounds: int) -> float:
    """The most that `rounds` rounds of `stage` can change any weight of a network."""
    assert network in (GENERATOR, DISCRIMINATOR)
    if network == GENERATOR and stage.sites_train == "discriminator":
        return adam_displacement(rounds * stage.generator_steps, LEARNING_RATE, BETAS)
    return federated_displacement(stage, BETAS, rounds)

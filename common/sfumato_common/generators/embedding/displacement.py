"""How far the fit to an embedding can move the generator: it is the coordinator's, by Adam."""

from __future__ import annotations

from sfumato_common.generators.displacement import adam_displacement
from sfumato_common.generators.embedding.settings import EmbeddingStage
from sfumato_common.generators.gan.displacement import GENERATOR_BETAS

LEARNING_RATE = 1e-3  # more than in a GAN: there is no opponent to outrun


def max_displacement(stage: EmbeddingStage, network: str, rounds: int) -> float:
    """The most that `rounds` rounds of `stage` can change any weight of 'generator'."""
    assert network == "generator"
    return adam_displacement(rounds * stage.generator_steps, LEARNING_RATE, GENERATOR_BETAS)

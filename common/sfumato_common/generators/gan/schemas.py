"""What travels in a GAN stage: spectral model and both networks to a site, the discriminator's change back."""

from __future__ import annotations

from sfumato_common.generators.gan.networks import discriminator, generator
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.schemas import update_schema, weights_schema
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.types import Schema


def sent(plan: PublicPlan) -> Schema:
    """The spectral model, the generator whose images a site tells from its own, the discriminator that learns it."""
    return {**spectral(plan), **weights_schema(plan, {"generator": generator, "discriminator": discriminator})}


def returned(plan: PublicPlan) -> Schema:
    """The change of the discriminator's weights."""
    return update_schema(plan, {"discriminator": discriminator})


def released(plan: PublicPlan) -> Schema:
    """The spectral model and the generator."""
    return {**spectral(plan), **weights_schema(plan, {"generator": generator})}

"""The networks of a GAN stage as a plan describes them; torch is loaded when one is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.gan.settings import GeneratorStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of

if TYPE_CHECKING:
    from sfumato_common.generators.gan.discriminator import Discriminator
    from sfumato_common.generators.gan.generator import Generator


def generator(plan: PublicPlan) -> Generator:
    """The generator with a W space, which is the identity on spectral images when it is new."""
    from sfumato_common.generators.components import condition_width
    from sfumato_common.generators.gan.generator import Generator
    from sfumato_common.generators.spectral.layout import Layout

    channels, latent = plan.image.channels, Layout.of(plan).features
    return Generator(plan.image.size, channels, latent, condition_width(plan), _width(plan))


def discriminator(plan: PublicPlan) -> Discriminator:
    """The discriminator, as wide as the generator."""
    from sfumato_common.generators.components import condition_width
    from sfumato_common.generators.gan.discriminator import Discriminator

    return Discriminator(plan.image.channels, condition_width(plan), _width(plan), plan.image.size)


def _width(plan: PublicPlan) -> int:
    """The plan sees to it that all stages with a generator agree."""
    return stage_of(plan, GeneratorStage).width  # type: ignore[type-abstract]

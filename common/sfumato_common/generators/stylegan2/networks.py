"""The networks of a StyleGAN2 stage as a plan describes them; torch is loaded when one is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage

if TYPE_CHECKING:
    from sfumato_common.generators.stylegan2.discriminator import Discriminator
    from sfumato_common.generators.stylegan2.generator import Generator

GENERATOR, DISCRIMINATOR = "stylegan2-generator", "stylegan2-discriminator"


def generator(plan: PublicPlan) -> Generator:
    """The generator, conditional on label and, where sites are fitted apart, site."""
    from sfumato_common.generators.components import condition_width
    from sfumato_common.generators.stylegan2.generator import Generator

    stage = stage_of(plan, StyleGan2Stage)
    form = (plan.image.size, plan.image.channels, condition_width(plan))
    return Generator(*form, stage.channel_base, stage.channel_max, stage.mapping_layers)


def discriminator(plan: PublicPlan) -> Discriminator:
    """The discriminator; only a plan without privacy lets it see how images of a batch deviate from each other."""
    from sfumato_common.generators.components import condition_width
    from sfumato_common.generators.stylegan2.discriminator import Discriminator

    stage = stage_of(plan, StyleGan2Stage)
    form = (plan.image.size, plan.image.channels, condition_width(plan))
    return Discriminator(*form, stage.channel_base, stage.channel_max, spread=not plan.private)


NETWORKS = {GENERATOR: generator, DISCRIMINATOR: discriminator}

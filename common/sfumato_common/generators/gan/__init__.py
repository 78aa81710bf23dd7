"""A GAN with a W space; only the discriminator sees real images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.base import Draw, Generator
from sfumato_common.generators.displacement import check_of_updates
from sfumato_common.generators.gan.displacement import SITE_BETAS, max_displacement
from sfumato_common.generators.gan.networks import discriminator, generator
from sfumato_common.generators.gan.schemas import released, returned, sent
from sfumato_common.generators.gan.settings import GanStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import Arrays

if TYPE_CHECKING:
    from sfumato_common.generators.gan.w_space import WSpace


def draw_generated(plan: PublicPlan, arrays: Arrays) -> Draw:
    """See `gan.sampler`."""
    from sfumato_common.generators.gan.sampler import sampler

    return sampler(plan, arrays)


def space_of_generator(plan: PublicPlan, arrays: Arrays) -> WSpace:
    """See `gan.sampler`."""
    from sfumato_common.generators.gan.sampler import w_space

    return w_space(plan, arrays)


GAN = Generator(
    kind="gan",
    settings=GanStage,
    help="A generator that learns from discriminators which sites train by DP-SGD.",
    sent=sent,
    returned=returned,
    check_reply=check_of_updates(GanStage, SITE_BETAS),
    released=released,
    trainer="sfumato_client.training.gan:train_discriminator",
    strategy="sfumato_server.rounds.strategies.gan:GanStrategy",
    summed=None,
    networks={"generator": generator, "discriminator": discriminator},
    max_displacement=max_displacement,
    check_fixed=None,
    sampler=draw_generated,
    latent=space_of_generator,
    flow=None,
    whitening=None,
    pretraining="sfumato_common.generators.gan.pretraining:pretrain",
    adopt=None,
)

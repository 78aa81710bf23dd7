"""StyleGAN2: a generator whose codes are a non-linear space; only the discriminator sees real images under privacy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sfumato_common.generators.base import Draw, Generator
from sfumato_common.generators.displacement import check_of_updates
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.stylegan2.displacement import BETAS, max_displacement
from sfumato_common.generators.stylegan2.networks import NETWORKS
from sfumato_common.generators.stylegan2.schemas import released, returned, sent
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage
from sfumato_common.types import Arrays

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato_common.generators.stylegan2.space import StyleSpace


def _sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    from sfumato_common.generators.stylegan2.sampler import sampler

    return sampler(plan, arrays)


def _space(plan: PublicPlan, arrays: Arrays) -> StyleSpace:
    from sfumato_common.generators.stylegan2.space import space_of

    return space_of(plan, arrays)


def _adopt(plan: PublicPlan, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    from sfumato_common.generators.stylegan2.published import adopt

    return adopt(plan, weights)


STYLEGAN2 = Generator(
    kind="stylegan2",
    settings=StyleGan2Stage,
    help="A StyleGAN2, whose discriminator sites train by DP-SGD; without privacy they train all of it.",
    sent=sent,
    returned=returned,
    check_reply=check_of_updates(StyleGan2Stage, BETAS),
    released=released,
    trainer="sfumato_client.training.stylegan2:train_networks",
    strategy="sfumato_server.rounds.strategies.stylegan2:StyleGan2Strategy",
    summed=None,
    networks=NETWORKS,
    max_displacement=max_displacement,
    check_fixed=None,
    sampler=_sampler,
    latent=_space,
    flow=None,
    whitening=None,
    pretraining="sfumato_common.generators.stylegan2.pretraining:pretrain",
    adopt=_adopt,
)

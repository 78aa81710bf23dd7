"""A small diffusion transformer on whitened images: public weights, of which DP-SGD trains a low-rank adapter."""

from __future__ import annotations

from sfumato_common.generators.base import Draw, Generator
from sfumato_common.generators.diffusion.displacement import BETAS, max_displacement
from sfumato_common.generators.diffusion.networks import NETWORKS
from sfumato_common.generators.diffusion.schemas import released, returned, sent
from sfumato_common.generators.diffusion.settings import DiffusionStage
from sfumato_common.generators.displacement import check_of_updates
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import Arrays


def _sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    from sfumato_common.generators.diffusion.sampler import sampler

    return sampler(plan, arrays)


DIFFUSION = Generator(
    kind="diffusion",
    settings=DiffusionStage,
    help="A public diffusion model of which sites train a small adapter by DP-SGD.",
    sent=sent,
    returned=returned,
    check_reply=check_of_updates(DiffusionStage, BETAS),
    released=released,
    trainer="sfumato_client.training.diffusion:train_adapter",
    strategy="sfumato_server.rounds.strategies.diffusion:DiffusionStrategy",
    summed=None,
    networks=NETWORKS,
    max_displacement=max_displacement,
    check_fixed=None,
    sampler=_sampler,
    latent=None,
    flow=None,
    whitening=None,
    pretraining="sfumato_common.generators.diffusion.pretraining:pretrain",
    adopt=None,
)

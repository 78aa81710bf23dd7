"""The embedding release: a cohort's mean features, once, and a generator fitted to them."""

from __future__ import annotations

from sfumato_common.generators.base import Generator
from sfumato_common.generators.embedding.displacement import max_displacement
from sfumato_common.generators.embedding.schemas import released, returned, sent
from sfumato_common.generators.embedding.settings import EmbeddingStage
from sfumato_common.generators.gan import draw_generated, space_of_generator
from sfumato_common.generators.gan.networks import generator
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import Arrays


def _check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    from sfumato_common.generators.embedding.replies import check_reply

    check_reply(plan, site, arrays)


EMBEDDING = Generator(
    kind="embedding",
    settings=EmbeddingStage,
    help="Mean features by class, released once; a generator is fitted to them.",
    sent=sent,
    returned=returned,
    check_reply=_check_reply,
    released=released,
    trainer="sfumato_client.training.embedding:release_embedding",
    strategy="sfumato_server.rounds.strategies.embedding:EmbeddingStrategy",
    networks={"generator": generator},
    max_displacement=max_displacement,
    check_fixed=None,
    sampler=draw_generated,
    latent=space_of_generator,
    flow=None,
    whitening=None,
    pretraining=None,
    adopt=None,
)

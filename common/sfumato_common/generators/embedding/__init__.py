"""The embedding release: a cohort's mean features, once, and a generator fitted to them."""

from __future__ import annotations

from sfumato_common.generators.base import Generator
from sfumato_common.generators.embedding.displacement import max_displacement
from sfumato_common.generators.embedding.schemas import released, returned, sent
from sfumato_common.generators.embedding.settings import EmbeddingStage
from sfumato_common.generators.gan import draw_generated, space_of_generator
from sfumato_common.generators.gan.networks import generator
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.summed import Phase, Summed, as_they_are
from sfumato_common.types import Arrays


def _check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    from sfumato_common.generators.embedding.replies import check_reply

    check_reply(plan, site, arrays)


def _multipliers(plan: PublicPlan) -> tuple[float, ...]:
    return (stage_of(plan, EmbeddingStage).noise_multiplier,)


def _phases(plan: PublicPlan) -> tuple[Phase, ...]:
    from sfumato_common.generators.embedding.features import SENSITIVITY

    shapes = {name: spec.shape for name, spec in returned(plan).items()}
    return (Phase(shapes, SENSITIVITY, *_multipliers(plan)),)


def _check_sum(plan: PublicPlan, noise_multiplier: float, patients: float, arrays: Arrays) -> None:
    from sfumato_common.generators.embedding.replies import check_sums

    check_sums(arrays, noise_multiplier, patients)


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
    summed=Summed(
        multipliers=_multipliers,
        phases=_phases,
        read=as_they_are,
        check=_check_sum,
        summand="sfumato_client.training.embedding:sums_of_sum",
    ),
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

"""The mean image of every class, released once, and pixels drawn about it."""

from __future__ import annotations

from sfumato_common.generators.class_mean.schemas import check_reply, released, returned, sent
from sfumato_common.generators.class_mean.settings import ClassMeanStage

from sfumato_common.generators.base import Draw, Generator
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import Arrays


def _sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    from sfumato_common.generators.class_mean.sampler import sampler

    return sampler(plan, arrays)


CLASS_MEAN = Generator(
    kind="class-mean",
    settings=ClassMeanStage,
    help="The mean image of every class, released once.",
    sent=sent,
    returned=returned,
    check_reply=check_reply,
    released=released,
    trainer="sfumato_client.training.class_mean:release_sums",
    strategy="sfumato_server.rounds.strategies.class_mean:ClassMeanStrategy",
    summed=None,
    networks={},
    max_displacement=None,
    check_fixed=None,
    sampler=_sampler,
    latent=None,
    flow=None,
    whitening=None,
    pretraining=None,
    adopt=None,
)

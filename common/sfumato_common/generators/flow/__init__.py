"""Normalising flows on whitened images: GLOW and the conditional INN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.base import Draw, Generator
from sfumato_common.generators.displacement import check_of_updates
from sfumato_common.generators.flow.displacement import BETAS, max_displacement
from sfumato_common.generators.flow.networks import flow
from sfumato_common.generators.flow.schemas import released, returned, sent
from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import Arrays

if TYPE_CHECKING:
    from sfumato_common.generators.flow.flows import Flow


def _sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    from sfumato_common.generators.flow.sampler import sampler

    return sampler(plan, arrays)


def _flow(plan: PublicPlan, arrays: Arrays) -> Flow:
    from sfumato_common.generators.flow.sampler import released_flow

    return released_flow(plan, arrays)


FLOW = Generator(
    kind="flow",
    settings=FlowStage,
    help="An invertible network (GLOW or a conditional INN) that sites train by DP-SGD.",
    sent=sent,
    returned=returned,
    check_reply=check_of_updates(FlowStage, BETAS),
    released=released,
    trainer="sfumato_client.training.flow:train_flow",
    strategy="sfumato_server.rounds.strategies.flow:FlowStrategy",
    summed=None,
    networks={"flow": flow},
    max_displacement=max_displacement,
    check_fixed=None,
    sampler=_sampler,
    latent=None,
    flow=_flow,
    whitening=None,
    pretraining="sfumato_common.generators.flow.pretraining:pretrain",
    adopt=None,
)

"""The codec release: class-conditional moments of a public autoencoder's codes, once, decoded by its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.base import Draw, Generator
from sfumato_common.generators.codec.schemas import NETWORKS, released, returned, sent
from sfumato_common.generators.codec.settings import CodecStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.moment_layout import DRAWN_NORMS, DRAWN_WEIGHTS, MomentLayout
from sfumato_common.generators.spectral.summed import summed_moments
from sfumato_common.types import Arrays

if TYPE_CHECKING:
    from sfumato_common.generators.whitening import Whitening
    from sfumato_common.latent.space import LatentSpace


def _sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    from sfumato_common.generators.codec.space import codec_space

    return codec_space(plan, arrays).sample


def _space(plan: PublicPlan, arrays: Arrays) -> LatentSpace:
    from sfumato_common.generators.codec.space import codec_space

    return codec_space(plan, arrays)


def _whitening(plan: PublicPlan, arrays: Arrays) -> Whitening:
    from sfumato_common.generators.codec.whitening import codec_whitening

    return codec_whitening(plan, arrays)


def _check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    from sfumato_common.generators.codec.layout import CodecLayout
    from sfumato_common.generators.replies import most_patients
    from sfumato_common.generators.spectral.replies import check_moments_reply

    sigma = stage_of(plan, CodecStage).noise_multiplier
    check_moments_reply(CodecLayout.of(plan), sigma, most_patients(plan, site), arrays)


def _layout(plan: PublicPlan) -> MomentLayout:
    from sfumato_common.generators.codec.layout import CodecLayout

    return CodecLayout.of(plan)


def _terms(plan: PublicPlan) -> tuple[float, bool]:
    stage = stage_of(plan, CodecStage)
    return stage.noise_multiplier, stage.radii == "charged"


def check_codec_arrays(plan: PublicPlan, arrays: Arrays) -> None:
    """See `spectral.limits.check_moments`; the network is held to the plan's hash, as every start is."""
    from sfumato_common.generators.codec.layout import CodecLayout
    from sfumato_common.generators.components import component_count
    from sfumato_common.generators.spectral.limits import check_moments

    check_moments(CodecLayout.of(plan), "codec", arrays, component_count(plan))


def _unmoved(stage: CodecStage, network: str, rounds: int) -> float:
    """A codec is public and frozen: what is sent is what the plan pins."""
    del stage, network, rounds
    return 0.0


CODEC = Generator(
    kind="codec",
    settings=CodecStage,
    help="Moments of a public autoencoder's codes by class, released once; its frozen network draws what is fine.",
    sent=sent,
    returned=returned,
    check_reply=_check_reply,
    released=released,
    trainer="sfumato_client.training.codec:release_codes",
    strategy="sfumato_server.rounds.strategies.codec:CodecStrategy",
    summed=summed_moments(_layout, _terms, DRAWN_WEIGHTS, DRAWN_NORMS, "sfumato_client.training.codec:moments_of_sum"),
    networks=NETWORKS,
    max_displacement=_unmoved,
    check_fixed=check_codec_arrays,
    sampler=_sampler,
    latent=_space,
    flow=None,
    whitening=_whitening,
    pretraining=None,
    adopt=None,
)

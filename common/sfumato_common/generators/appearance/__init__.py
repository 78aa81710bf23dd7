"""The appearance release: moments of exposed, aligned images and of their textures' energies, released once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.appearance.schemas import released, returned, sent
from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.generators.base import Draw, Generator
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.moment_layout import DRAWN_NORMS, DRAWN_WEIGHTS, MomentLayout
from sfumato_common.generators.spectral.summed import summed_moments
from sfumato_common.types import Arrays

if TYPE_CHECKING:
    from sfumato_common.generators.whitening import Whitening
    from sfumato_common.latent.space import LatentSpace


def _sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    from sfumato_common.generators.appearance.synthesis import appearance_model

    return appearance_model(plan, arrays).sample


def _space(plan: PublicPlan, arrays: Arrays) -> LatentSpace:
    from sfumato_common.generators.appearance.latent import appearance_space

    return appearance_space(plan, arrays)


def _whitening(plan: PublicPlan, arrays: Arrays) -> Whitening:
    from sfumato_common.generators.appearance.whitening import appearance_whitening

    return appearance_whitening(plan, arrays)


def _check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    from sfumato_common.generators.appearance.feature_map import AppearanceLayout
    from sfumato_common.generators.replies import most_patients
    from sfumato_common.generators.spectral.replies import check_moments_reply

    sigma = stage_of(plan, AppearanceStage).noise_multiplier
    check_moments_reply(AppearanceLayout.of(plan), sigma, most_patients(plan, site), arrays)


def _layout(plan: PublicPlan) -> MomentLayout:
    from sfumato_common.generators.appearance.feature_map import AppearanceLayout

    return AppearanceLayout.of(plan)


def _terms(plan: PublicPlan) -> tuple[float, bool]:
    stage = stage_of(plan, AppearanceStage)
    return stage.noise_multiplier, stage.radii == "charged"


def check_appearance_arrays(plan: PublicPlan, arrays: Arrays) -> None:
    """See `spectral.limits.check_moments`."""
    from sfumato_common.generators.appearance.feature_map import AppearanceLayout
    from sfumato_common.generators.components import component_count
    from sfumato_common.generators.spectral.limits import check_moments

    check_moments(AppearanceLayout.of(plan), "appearance", arrays, component_count(plan))


APPEARANCE = Generator(
    kind="appearance",
    settings=AppearanceStage,
    help="Exposure, pose, low frequencies and texture energies by class, released once; detail is the phantom's.",
    sent=sent,
    returned=returned,
    check_reply=_check_reply,
    released=released,
    trainer="sfumato_client.training.appearance:release_appearance",
    strategy="sfumato_server.rounds.strategies.appearance:AppearanceStrategy",
    summed=summed_moments(
        _layout, _terms, DRAWN_WEIGHTS, DRAWN_NORMS, "sfumato_client.training.appearance:moments_of_sum"
    ),
    networks={},
    max_displacement=None,
    check_fixed=check_appearance_arrays,
    sampler=_sampler,
    latent=_space,
    flow=None,
    whitening=_whitening,
    pretraining=None,
    adopt=None,
)

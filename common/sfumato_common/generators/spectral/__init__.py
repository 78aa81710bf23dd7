"""The spectral release: class-conditional moments of DCT coefficients, once, and the Gaussian model that they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.base import Draw, Generator
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.layout import NORMS, WEIGHTS, Layout
from sfumato_common.generators.spectral.schemas import released, returned, sent
from sfumato_common.generators.spectral.settings import SpectralStage
from sfumato_common.generators.spectral.summed import summed_moments
from sfumato_common.types import Arrays

if TYPE_CHECKING:
    from sfumato_common.generators.whitening import Whitening


def _sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    from sfumato_common.generators.spectral.whitening import spectral_model

    return spectral_model(plan, arrays).sample


def _whitening(plan: PublicPlan, arrays: Arrays) -> Whitening:
    from sfumato_common.generators.spectral.whitening import spectral_model

    return spectral_model(plan, arrays)


def _check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    from sfumato_common.generators.spectral.replies import check_reply

    check_reply(plan, site, arrays)


def _terms(plan: PublicPlan) -> tuple[float, bool]:
    return plan.spectral.noise_multiplier, plan.spectral.radii == "charged"


def check_spectral_arrays(plan: PublicPlan, arrays: Arrays) -> None:
    """See `spectral.limits`."""
    from sfumato_common.generators.spectral.limits import check_spectral

    check_spectral(plan, arrays)


SPECTRAL = Generator(
    kind="spectral",
    settings=SpectralStage,
    help="Means and covariances of low frequencies by class, released once; every other stage starts from them.",
    sent=sent,
    returned=returned,
    check_reply=_check_reply,
    released=released,
    trainer="sfumato_client.training.spectral:release_moments",
    strategy="sfumato_server.rounds.strategies.spectral:SpectralStrategy",
    summed=summed_moments(Layout.of, _terms, WEIGHTS, NORMS, "sfumato_client.training.spectral:moments_of_sum"),
    networks={},
    max_displacement=None,
    check_fixed=check_spectral_arrays,
    sampler=_sampler,
    latent=None,
    flow=None,
    whitening=_whitening,
    pretraining=None,
    adopt=None,
)

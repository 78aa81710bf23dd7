"""The features release: moments of a given encoder's embeddings by class, once, for studies that publish vectors.

As the spectral release of low frequencies, by the same mechanism; it leaves a Gaussian a component, of which the
coordinator publishes vectors: an exchange, and no generator of images. A site takes part where `allowed_stages` of its
policy names the kind.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.encoders.settings import EncoderName
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.base import Exchange
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.replies import most_patients
from sfumato_common.generators.settings import OneShotStage, Positive, stage_of
from sfumato_common.generators.spectral.moment_layout import DRAWN_NORMS, DRAWN_WEIGHTS, MomentLayout
from sfumato_common.generators.spectral.summed import summed_moments
from sfumato_common.types import Arrays, ArraySpec, Schema

MATRIX, OFFSET = "features/matrix", "features/offset"


class FeaturesStage(OneShotStage):
    """One-shot class-conditional release of embeddings in `dimensions` random directions; `vectors` are published.

    Directions are drawn from the plan's digest and published with the vectors. Components are those of the plan's first
    stage: a class, or a class at a site.
    """

    kind: Literal["features"]
    """Moments of embeddings, released once; vectors are published."""
    noise_multiplier: Positive
    """Noise of the whole release, over a sensitivity of 1; left out where the plan has a budget."""
    encoder: EncoderName
    """The given encoder."""
    dimensions: Annotated[int, Field(ge=8, le=256)] = 64
    """Random public directions that embeddings are released in."""
    vectors: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Vectors that are published."""

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """`encoder`."""
        return (self.encoder,)

    def check(self, plan: PublicPlan) -> None:
        """There are no more directions than the encoder has numbers."""
        if self.dimensions > plan.encoders[self.encoder].length:
            raise ValueError("'dimensions' of features are more than the encoder's numbers; ask for fewer")


def sent(plan: PublicPlan) -> Schema:
    """Nothing: sites work from the plan and the encoder alone."""
    return {}


def returned(plan: PublicPlan) -> Schema:
    """The noised sums of one site (see `spectral.release.noised_moments`)."""
    from sfumato_common.exchanges.feature_space import FeatureLayout
    from sfumato_common.generators.spectral.schemas import moments_returned

    return moments_returned(FeatureLayout.of(plan))


def check_reply(plan: PublicPlan, site: str, arrays: Arrays) -> None:
    """Raise VerificationError for noised sums that patients of `site` cannot have given."""
    from sfumato_common.exchanges.feature_space import FeatureLayout
    from sfumato_common.generators.spectral.replies import check_moments_reply

    sigma = stage_of(plan, FeaturesStage).noise_multiplier
    check_moments_reply(FeatureLayout.of(plan), sigma, most_patients(plan, site), arrays)


def released(plan: PublicPlan) -> Schema:
    """The Gaussian of each component, how an embedding becomes a vector, and the model that the plan begins with."""
    from sfumato_common.generators.components import component_count
    from sfumato_common.generators.spectral.schemas import gaussians

    stage = stage_of(plan, FeaturesStage)
    length = plan.encoders[stage.encoder].length
    own = gaussians("features", component_count(plan), stage.dimensions)
    map_ = {MATRIX: (length, stage.dimensions), OFFSET: (stage.dimensions,)}
    return {
        **GENERATORS[plan.base].released(plan),
        **own,
        **{name: ArraySpec("float32", shape) for name, shape in map_.items()},
    }


def _layout(plan: PublicPlan) -> MomentLayout:
    from sfumato_common.exchanges.feature_space import FeatureLayout

    return FeatureLayout.of(plan)


def _terms(plan: PublicPlan) -> tuple[float, bool]:
    return stage_of(plan, FeaturesStage).noise_multiplier, True


FEATURES = Exchange(
    kind="features",
    settings=FeaturesStage,
    help="Moments of a given encoder's embeddings by class, released once; vectors are published.",
    sent=sent,
    returned=returned,
    check_reply=check_reply,
    released=released,
    trainer="sfumato_client.training.features:release_features",
    strategy="sfumato_server.rounds.strategies.features:FeaturesStrategy",
    summed=summed_moments(
        _layout, _terms, DRAWN_WEIGHTS, DRAWN_NORMS, "sfumato_client.training.features:moments_of_sum"
    ),
)

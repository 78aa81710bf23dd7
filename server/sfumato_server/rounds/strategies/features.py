"""Features stage at the coordinator: pool the sites' one-shot releases and fit a Gaussian a component to them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sfumato_common.exchanges.feature_space import FeatureLayout, FeatureSpace
from sfumato_common.exchanges.features import FeaturesStage
from sfumato_common.generators.spectral.drawn import fit_drawn
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays
from sfumato_server.rounds.encoders import encoder_in
from sfumato_server.rounds.strategies.one_shot import OneShotStrategy


class FeaturesStrategy(OneShotStrategy[FeaturesStage]):
    """The fit is the spectral release's; the public map stands beside it, so that the model needs no encoder."""

    def __init__(self, plan: Plan, stage: FeaturesStage, released: Mapping[str, Arrays]) -> None:
        super().__init__(plan, stage, released)
        self._space = FeatureSpace.of(plan, encoder_in(plan, stage.encoder, released))

    def fit(self, replies: Mapping[str, Arrays], noise_multiplier: float) -> Arrays:
        """The Gaussians of the releases, and the map from embeddings to vectors."""
        plan = self._plan
        fitted = fit_drawn(plan, FeatureLayout.of(plan), noise_multiplier, replies, by_site=plan.by_site)
        map_ = {"matrix": self._space.matrix, "offset": self._space.offset}
        return {**fitted, **{name: value.astype(np.float32) for name, value in map_.items()}}

"""Appearance stage at the coordinator: pool the sites' one-shot releases and fit the Gaussian model to them."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato_common.generators.appearance.fit import fit_appearance
from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.types import Arrays
from sfumato_server.rounds.strategies.one_shot import OneShotStrategy


class AppearanceStrategy(OneShotStrategy[AppearanceStage]):
    """The fit is `appearance.fit`'s."""

    def fit(self, replies: Mapping[str, Arrays], noise_multiplier: float) -> Arrays:
        """The appearance model of the releases."""
        return fit_appearance(self._plan, replies, noise_multiplier)

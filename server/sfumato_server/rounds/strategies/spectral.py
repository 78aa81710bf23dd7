"""Spectral stage at the coordinator: pool the sites' one-shot releases and fit the Gaussian model to them."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.settings import SpectralStage
from sfumato_common.types import Arrays
from sfumato_server.rounds.strategies.one_shot import OneShotStrategy


class SpectralStrategy(OneShotStrategy[SpectralStage]):
    """The fit is `spectral.fit`'s."""

    def fit(self, replies: Mapping[str, Arrays], noise_multiplier: float) -> Arrays:
        """The spectral model of the releases."""
        return fit_release(self._plan, replies, noise_multiplier)

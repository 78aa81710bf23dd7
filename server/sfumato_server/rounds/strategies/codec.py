"""Codec stage at the coordinator: send the pinned network, pool the sites' releases, fit the Gaussian model to them."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato_common.generators.codec.layout import CodecLayout
from sfumato_common.generators.codec.schemas import AUTOENCODER, build_autoencoder
from sfumato_common.generators.codec.settings import CodecStage
from sfumato_common.generators.spectral.drawn import fit_drawn
from sfumato_common.generators.starts import starting_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.one_shot import OneShotStrategy


class CodecStrategy(OneShotStrategy[CodecStage]):
    """The fit is the spectral release's own."""

    def __init__(self, plan: Plan, stage: CodecStage, released: Mapping[str, Arrays]) -> None:
        super().__init__(plan, stage, released)
        network = starting_model(AUTOENCODER, build_autoencoder, plan, stage, released)
        self._network = to_arrays(AUTOENCODER, network)

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """The public network."""
        return dict(self._network)

    def fit(self, replies: Mapping[str, Arrays], noise_multiplier: float) -> Arrays:
        """The Gaussian of each component of the releases."""
        layout = CodecLayout.of(self._plan)
        return fit_drawn(self._plan, layout, noise_multiplier, replies, by_site=self._stage.by_site)

    def released(self) -> dict[str, AnyArray]:
        """The fitted model with the network, and the model that the plan begins with. Raises FederationError."""
        return {**super().released(), **self._network}

"""Embedding stage at the coordinator: pool the sites' one-shot releases and fit a generator to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sfumato_common.errors import FederationError
from sfumato_common.generators.embedding.fit import fit_generator
from sfumato_common.generators.embedding.settings import EmbeddingStage
from sfumato_common.generators.weights import to_arrays
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.encoders import encoder_in
from sfumato_server.rounds.strategies import Sum
from sfumato_server.rounds.strategies.averaging import check_replies


class EmbeddingStrategy:
    """One exchange: patients' contributions add up, so nothing is weighted; the fit is post-processing."""

    def __init__(self, plan: Plan, stage: EmbeddingStage, released: Mapping[str, Arrays]) -> None:
        self._plan, self._stage = plan, stage
        self._spectral = dict(released["spectral"])
        self._encoder = encoder_in(plan, stage.encoder, released) if stage.encoder is not None else None
        self._generator: dict[str, AnyArray] = {}

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """The spectral release, which features are compared with."""
        return dict(self._spectral)

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """Fit the generator to the sums of all sites that answered."""
        check_replies(self._plan, self._stage, replies)
        sums = {site: arrays["sums"] for site, arrays in replies.items()}
        self._fit(sums, self._stage.noise_multiplier, generator)

    def absorb_sum(self, release: Arrays, about: Sum, generator: torch.Generator) -> None:
        """Fit the generator to the sum over sites, as to the sums of one site."""
        self._fit({"sum": release["sums"]}, about.noise_multiplier, generator)

    def _fit(self, sums: Mapping[str, AnyArray], noise_multiplier: float, generator: torch.Generator) -> None:
        fitted = fit_generator(self._plan, self._spectral, sums, generator, self._encoder, noise_multiplier)
        self._generator = to_arrays("generator", fitted)

    def released(self) -> dict[str, AnyArray]:
        """The spectral release and the fitted generator. Raises FederationError before the exchange."""
        if not self._generator:
            raise FederationError("the embedding stage has not run; run it first")
        return {**self._spectral, **self._generator}

    def state(self) -> dict[str, AnyArray]:
        """The fitted generator."""
        return dict(self._generator)

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._generator = dict(state)

"""StyleGAN2 stage at the coordinator: follow the sites' updates; under privacy, train the generator on what is private.

The generator never meets a discriminator that is not yet private: its training is post-processing. Without privacy both
networks follow the sites' mean update (McMahan et al. 2017). What is released is a moving average of the generator.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sfumato_common.generators.components import component_shares, condition
from sfumato_common.generators.gan.w_space import follow
from sfumato_common.generators.starts import starting_model
from sfumato_common.generators.stylegan2 import networks
from sfumato_common.generators.stylegan2.displacement import BETAS, LEARNING_RATE
from sfumato_common.generators.stylegan2.generator import CODE
from sfumato_common.generators.stylegan2.networks import DISCRIMINATOR, GENERATOR
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage
from sfumato_common.generators.weights import load_arrays, load_network, to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import check_replies, move_start
from sfumato_server.rounds.strategies.fooling import BATCH, Fooled, descend
from sfumato_server.rounds.strategies.optimisers import ServerStep

_AVERAGE = "average"


class StyleGan2Strategy:
    """Starts from the plan's public start; the spectral release says how often each component is drawn."""

    def __init__(self, plan: Plan, stage: StyleGan2Stage, released: Mapping[str, Arrays]) -> None:
        self._plan, self._stage = plan, stage
        self._spectral = dict(released["spectral"])
        self._generator, self._average = (
            starting_model(GENERATOR, networks.generator, plan, stage, released) for _ in range(2)
        )
        judge = starting_model(DISCRIMINATOR, networks.discriminator, plan, stage, released)
        self._judge: dict[str, AnyArray] = to_arrays(DISCRIMINATOR, judge)
        self._server = ServerStep(stage.server)

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """The spectral release and both networks."""
        return {**self._spectral, **to_arrays(GENERATOR, self._generator), **self._judge}

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """Follow the updates; then, under privacy, take the plan's `generator_steps` against the discriminator."""
        check_replies(self._plan, self._stage, replies)
        both = self._stage.sites_train == "both"
        start = {**(to_arrays(GENERATOR, self._generator) if both else {}), **self._judge}
        moved = move_start(self._plan, start, replies, self._server)
        self._judge = {name: value for name, value in moved.items() if name in self._judge}
        if both:
            load_arrays(GENERATOR, self._generator, moved)
            follow(self._average, self._generator, self._stage.rounds)
        else:
            self._train_generator(TorchDraws(generator))

    def _train_generator(self, draws: TorchDraws) -> None:
        """At most the plan's steps: none once the discriminator is fooled: beyond that it says noise."""
        judge = load_network(DISCRIMINATOR, networks.discriminator, self._plan, self._judge).requires_grad_(False)
        shares = torch.from_numpy(component_shares(self._plan, self._spectral))
        optimiser = torch.optim.Adam(self._generator.parameters(), lr=LEARNING_RATE, betas=BETAS)
        fooled = Fooled()
        for _ in range(self._stage.generator_steps):
            optimiser.zero_grad()
            if fooled.after(self._descend(judge, draws.categorical(shares, BATCH), draws)):
                break
            optimiser.step()
            follow(self._average, self._generator, self._stage.generator_steps * self._stage.rounds)

    def _descend(self, judge: nn.Module, labels: Tensor, draws: TorchDraws) -> float:
        """Add the gradient of the loss on images of `labels`; the share of them that the judge takes for real."""
        noise = draw_noise(self._plan.image.size, len(labels), draws)
        rows = draws.normal((len(labels), CODE)), labels, *noise

        def score(z: Tensor, y: Tensor, *maps: Tensor) -> Tensor:
            given = condition(self._plan, y)
            scores: Tensor = judge(self._generator(z, given, maps), given)
            return scores

        return descend(score, rows)

    def released(self) -> dict[str, AnyArray]:
        """The spectral release and the averaged generator."""
        return {**self._spectral, **to_arrays(GENERATOR, self._average)}

    def state(self) -> dict[str, AnyArray]:
        """Both networks, the generator's moving average, and the server optimiser's moments."""
        weights = {**to_arrays(GENERATOR, self._generator), **to_arrays(_AVERAGE, self._average), **self._judge}
        return {**weights, **self._server.state()}

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        load_arrays(GENERATOR, self._generator, state)
        load_arrays(_AVERAGE, self._average, state)
        self._judge = {name: state[name] for name in self._judge}
        self._server.restore(state)

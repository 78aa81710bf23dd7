"""GAN stage at the coordinator: move the DP discriminators by the sites' updates, then train the generator on them.

The generator never meets a discriminator that is not yet private: its training is post-processing. What is released
is an exponential moving average of its weights (Yazici et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sfumato_common.generators.components import condition
from sfumato_common.generators.gan import networks
from sfumato_common.generators.gan.displacement import GENERATOR_BETAS, GENERATOR_LEARNING_RATE
from sfumato_common.generators.gan.generator import Generator
from sfumato_common.generators.gan.settings import GanStage
from sfumato_common.generators.gan.w_space import Noise, WSpace, follow
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.starts import starting_model
from sfumato_common.generators.weights import load_arrays, load_network, to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import check_replies
from sfumato_server.rounds.strategies.discriminators import Discriminators, WeighedDiscriminator
from sfumato_server.rounds.strategies.fooling import BATCH, Fooled, descend


class GanStrategy:
    """Starts from the generator that returns spectral samples unchanged, or from the embedding stage's.

    That one was fitted to a private release, so that it costs this stage nothing.
    """

    def __init__(self, plan: Plan, stage: GanStage, released: Mapping[str, Arrays]) -> None:
        self._plan, self._stage = plan, stage
        self._spectral = dict(released["spectral"])
        first = to_arrays(
            "discriminator", starting_model("discriminator", networks.discriminator, plan, stage, released)
        )
        self._discriminators = Discriminators(plan, stage, first)
        self._generator, self._average = (self._first(released) for _ in range(2))

    def _first(self, released: Mapping[str, Arrays]) -> Generator:
        earlier = self._stage.begins_at("generator")
        if earlier is not None:
            return load_network("generator", networks.generator, self._plan, released[earlier])
        return starting_model("generator", networks.generator, self._plan, self._stage, released)

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """The spectral release, the discriminator that the site trains, the generator whose images it tells apart."""
        return {**self._spectral, **to_arrays("generator", self._generator), **self._discriminators.sent(site)}

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """Move the discriminators by the updates, then take the plan's `generator_steps` against them."""
        check_replies(self._plan, self._stage, replies)
        self._discriminators.move(replies)
        self._train_generator(TorchDraws(generator))

    def _train_generator(self, draws: TorchDraws) -> None:
        """At most the plan's steps: none once the discriminators are fooled: beyond that they say noise."""
        spectral = spectral_model(self._plan, self._spectral)
        space, panel = WSpace(self._plan, self._generator, spectral), self._discriminators.panel(self._spectral)
        batch = math.ceil(BATCH / len(panel))
        optimiser = torch.optim.Adam(self._generator.parameters(), lr=GENERATOR_LEARNING_RATE, betas=GENERATOR_BETAS)
        fooled = Fooled()
        for _ in range(self._stage.generator_steps):
            optimiser.zero_grad()
            real = 0.0
            for discriminator in panel:
                labels = draws.categorical(discriminator.shares, batch)
                real += discriminator.weight * self._descend(space, discriminator, labels, draws)
            if fooled.after(real):
                break
            nn.utils.clip_grad_norm_(self._generator.parameters(), 1.0)
            optimiser.step()
            follow(self._average, self._generator, self._stage.generator_steps * self._stage.rounds)

    def _descend(self, space: WSpace, judge: WeighedDiscriminator, labels: Tensor, draws: TorchDraws) -> float:
        """Add the gradient of a judge's loss on images of `labels`; the share of them that it takes for real."""
        z, noise = space.draw_latent(labels, draws)

        def score(latents: Tensor, y: Tensor, tail: Tensor, *maps: Tensor) -> Tensor:
            images = space.decode(space.mapping(latents, y), y, Noise(tail, list(maps)))
            scores: Tensor = judge.module(images, condition(self._plan, y))
            return scores

        return descend(score, (z, labels, noise.tail, *noise.maps), judge.weight)

    def released(self) -> dict[str, AnyArray]:
        """The spectral release and the averaged generator."""
        return {**self._spectral, **to_arrays("generator", self._average)}

    def state(self) -> dict[str, AnyArray]:
        """Discriminators, generator and the generator's moving average."""
        generator, average = to_arrays("generator", self._generator), to_arrays("generator", self._average)
        return {
            **self._discriminators.state(),
            **generator,
            **{f"average/{name}": value for name, value in average.items()},
        }

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._discriminators.restore(state)
        load_arrays("generator", self._generator, state)
        averages = {name.removeprefix("average/"): v for name, v in state.items() if name.startswith("average/")}
        load_arrays("generator", self._average, averages)

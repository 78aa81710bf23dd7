"""GAN stage at the coordinator: average the sites' DP discriminators, then train the generator against that one.

The generator never meets a discriminator that is not yet private: its training is post-processing. What is released
is an exponential moving average of its weights (Yazici et al. 2019).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from sfumato_common.config.plan import Plan
from sfumato_common.config.stages import GanStage
from sfumato_common.models.build import from_arrays, load_arrays, spectral_model, to_arrays
from sfumato_common.models.components import component_shares, condition
from sfumato_common.models.gan import draw_images
from sfumato_common.models.reach import GENERATOR_BETAS, GENERATOR_LEARNING_RATE
from sfumato_common.models.starts import starting_model
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import check_replies, moved

_BATCH = 64
_EMA_HORIZON = 0.3  # of the stage's steps
# the share of generated images that the judge may take as real, over about this many steps, before the round ends
_FOOLED, _FOOLED_HORIZON = 0.5, 5.0


class GanStrategy:
    """Starts from the generator that returns spectral samples unchanged."""

    def __init__(self, plan: Plan, released: dict[str, dict[str, AnyArray]]) -> None:
        stage = plan.stage("gan")
        assert isinstance(stage, GanStage)
        self._plan, self._stage = plan, stage
        self._spectral = dict(released["spectral"])
        self._discriminator = to_arrays("discriminator", starting_model("discriminator", plan, "gan", released))
        self._generator = starting_model("generator", plan, "gan", released)
        self._average = starting_model("generator", plan, "gan", released)

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """The spectral release, the generator whose images the discriminator has to tell apart, the discriminator."""
        return {**self._spectral, **to_arrays("generator", self._generator), **self._discriminator}

    def absorb(self, round_number: int, replies: dict[str, dict[str, AnyArray]], generator: torch.Generator) -> None:
        """Move the discriminator by the mean update, then take the plan's `generator_steps` against the average."""
        check_replies(self._plan, "gan", replies)
        self._discriminator = moved(self._plan, "gan", self._discriminator, replies)
        self._train_generator(generator)

    def _train_generator(self, rng: torch.Generator) -> None:
        """At most the plan's steps: none once the judge is fooled, for what a noisy judge says beyond that is noise."""
        spectral = spectral_model(self._plan, self._spectral)
        shares = torch.from_numpy(component_shares(self._plan, self._spectral))
        judge = from_arrays("discriminator", self._plan, self._discriminator).requires_grad_(False)
        optimiser = torch.optim.Adam(self._generator.parameters(), lr=GENERATOR_LEARNING_RATE, betas=GENERATOR_BETAS)
        horizon = max(2.0, _EMA_HORIZON * self._stage.generator_steps * self._stage.rounds)
        fooled = 0.0
        for _ in range(self._stage.generator_steps):
            components = torch.multinomial(shares, _BATCH, replacement=True, generator=rng)
            images = draw_images(self._plan, self._generator, spectral, components, rng)
            logits = judge(images, condition(self._plan, components))
            fooled += (float((logits > 0.0).float().mean()) - fooled) / _FOOLED_HORIZON
            if fooled >= _FOOLED:
                break
            optimiser.zero_grad()
            functional.softplus(-logits).mean().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._generator.parameters(), 1.0)
            optimiser.step()
            with torch.no_grad():
                for slow, fast in zip(self._average.parameters(), self._generator.parameters(), strict=True):
                    slow.lerp_(fast, 1.0 / horizon)

    def released(self) -> dict[str, AnyArray]:
        """The spectral release and the averaged generator."""
        return {**self._spectral, **to_arrays("generator", self._average)}

    def state(self) -> dict[str, AnyArray]:
        """Discriminator, generator and the generator's moving average."""
        generator, average = to_arrays("generator", self._generator), to_arrays("generator", self._average)
        return {**self._discriminator, **generator, **{f"average/{name}": value for name, value in average.items()}}

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._discriminator = {name: value for name, value in state.items() if name.startswith("discriminator/")}
        load_arrays("generator", self._generator, state)
        averages = {name.removeprefix("average/"): v for name, v in state.items() if name.startswith("average/")}
        load_arrays("generator", self._average, averages)

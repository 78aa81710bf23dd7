"""Training a StyleGAN2 without privacy (Karras et al. 2020): by public starts, by benches, and under `private: false`.

Logistic losses, R1 lazily on real images (Mescheder et al. 2018), path lengths where asked for, adaptive augmentation,
and the moving average of the generator. One batch of generated images serves both networks of a step. A short training
ends at falling learning rates: an average of weights that still move far draws with less contrast than any of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.stylegan2.augment import Adaptation, augment
from sfumato_common.generators.stylegan2.discriminator import Discriminator
from sfumato_common.generators.stylegan2.displacement import BETAS
from sfumato_common.generators.stylegan2.generator import CODE, Generator
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.stylegan2.recorded import Recorded
from sfumato_common.mechanisms.draws import TorchDraws

PENALTY_EVERY, PATHS_EVERY = 16, 4
# of the average: half of what it holds is younger than so many images, and than this share of all so far
_HALF_LIFE, _RAMP = 10_000, 0.02
_FALL = 0.3  # the last share of a training, in which learning rates fall to nothing
_PATH_DECAY = 0.01


@dataclass(frozen=True)
class Recipe:
    """What a training may vary: learning rate of both networks, weights of R1 and of path lengths (0: none)."""

    learning_rate: float
    r1: float
    path_length: float = 0.0
    augments: bool = True
    half_precision: bool = False


def gradient_penalty(forward: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    """Squared length of the discriminator's gradient at images [N, C, S, S], one value a record [N]."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(forward(x, condition).sum(), x, create_graph=True)
    return slope.square().sum(dim=(1, 2, 3))


class Training:
    """Both networks, their optimisers, and the average that is kept; `draws` are where the networks are.

    `recorded`: batches are of one size; on an accelerator steps are then recorded and replayed, several times faster.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        recipe: Recipe,
        draws: TorchDraws,
        *,
        recorded: bool = False,
    ) -> None:
        # the order of axes in which convolutions are fastest, on processors and accelerators
        self.generator = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._recipe, self._draws = recipe, draws
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.adaptation, self.images, self._steps = Adaptation(), 0, 0
        self._path_mean: Tensor | None = None
        device = next(generator.parameters()).device
        # the mean of path lengths is another tensor at every step, which no recording could know
        self._recorded = recorded and device.type == "cuda" and not recipe.path_length
        self._slow, self._fast = (self._optimiser(network, device) for network in (self.generator, self.discriminator))
        self._moves = {penalised: self._move_of(penalised) for penalised in (False, True)}

    def _optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Adam:
        rate, recorded = self._recipe.learning_rate, self._recorded
        given = torch.tensor(rate, device=device) if recorded else rate
        return torch.optim.Adam(network.parameters(), lr=given, betas=BETAS, fused=True, capturable=recorded)

    def _move_of(self, penalised: bool) -> Callable[..., Tensor]:
        move = partial(self._move, penalised=penalised)
        return Recorded(move, self._draws) if self._recorded else move

    def pace(self, left: float) -> None:
        """Set the learning rates for the share of the training that is left: all of them but in the last .3 of it."""
        rate = self._recipe.learning_rate * min(1.0, max(0.0, left / _FALL))
        for optimiser in (self._slow, self._fast):
            if self._recorded:
                optimiser.param_groups[0]["lr"].fill_(rate)
            else:
                optimiser.param_groups[0]["lr"] = rate

    def step(self, images: Tensor, condition: Tensor, wanted: Tensor) -> float:
        """One step of both networks on real images [N, C, S, S] of `condition` [N, K] and others of `wanted` [N, K].

        Returns the discriminator's loss.
        """
        p: float | Tensor = self.adaptation.probability
        if self._recorded:
            p = torch.full((), self.adaptation.probability, device=images.device)
        penalised = self._recipe.r1 > 0.0 and self._steps % PENALTY_EVERY == 0
        loss, surely = self._moves[penalised](images, condition, wanted, p).tolist()
        if self._recipe.augments:
            self.adaptation.see(surely, len(images))
        self._steps, self.images = self._steps + 1, self.images + len(images)
        self._follow(len(images))
        return float(loss)

    def _move(self, images: Tensor, condition: Tensor, wanted: Tensor, p: float | Tensor, *, penalised: bool) -> Tensor:
        """A step of either network; the discriminator's loss and its logits' mean sign on real images [2]."""
        with self._autocast(images.device):
            fakes = self.draw(wanted)
        seen, shown = augment(torch.cat([images, fakes.detach()]), p, self._draws).chunk(2)
        self._fast.zero_grad()
        with self._autocast(images.device):
            real, fake = self.discriminator(seen, condition), self.discriminator(shown, wanted)
        loss = functional.softplus(-real).mean() + functional.softplus(fake).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        if penalised:
            penalty = gradient_penalty(self.discriminator, seen, condition).mean()
            (0.5 * self._recipe.r1 * PENALTY_EVERY * penalty).backward()  # type: ignore[no-untyped-call]
        self._fast.step()
        self._teach(fakes, wanted, p)
        return torch.stack([loss.detach(), real.detach().sign().mean()])

    def _teach(self, fakes: Tensor, wanted: Tensor, p: float | Tensor) -> None:
        """The generator's step on what it drew."""
        self._slow.zero_grad()
        self.discriminator.requires_grad_(False)
        with self._autocast(fakes.device):
            logits = self.discriminator(augment(fakes, p, self._draws), wanted)
        functional.softplus(-logits).mean().backward()  # type: ignore[no-untyped-call]
        self.discriminator.requires_grad_(True)
        if self._recipe.path_length and self._steps % PATHS_EVERY == 0:
            weight = self._recipe.path_length * PATHS_EVERY
            (weight * self._path_deviation(wanted)).backward()  # type: ignore[no-untyped-call]
        self._slow.step()

    def draw(self, condition: Tensor) -> Tensor:
        """Images of conditions [N, K], differentiable in the generator."""
        z = self._draws.normal((len(condition), CODE))
        made: Tensor = self.generator(z, condition, draw_noise(self.generator.size, len(z), self._draws))
        return made

    def _path_deviation(self, condition: Tensor) -> Tensor:
        """How unevenly codes move images (Karras et al. 2020, section 3.2), on half of a batch."""
        condition = condition[: max(1, len(condition) // 2)]
        codes = self.generator.broadcast(self.generator.mapping(self._draws.normal((len(condition), CODE)), condition))
        noise = draw_noise(self.generator.size, len(condition), self._draws)
        images = self.generator.synthesis(codes, noise)
        random = self._draws.normal(images.shape) / math.sqrt(images[0, 0].numel())
        (slope,) = torch.autograd.grad((images * random).sum(), codes, create_graph=True)
        lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()
        mean = lengths.detach().mean()
        self._path_mean = mean if self._path_mean is None else self._path_mean.lerp(mean, _PATH_DECAY)
        deviation: Tensor = (lengths - self._path_mean).square().mean()
        return deviation

    def _follow(self, count: int) -> None:
        weight = 0.5 ** (count / max(1.0, min(_HALF_LIFE, _RAMP * self.images)))
        with torch.no_grad():
            pairs: Sequence[list[Tensor]] = [list(net.parameters()) for net in (self.average, self.generator)]
            torch._foreach_lerp_(pairs[0], pairs[1], 1.0 - weight)

    def _autocast(self, device: torch.device) -> torch.autocast:
        half, cached = self._recipe.half_precision, not self._recorded  # a recording must not keep rounded weights
        return torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=cached)

"""Training a codec on public images, on whatever device there is, for so many steps or seconds."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sfumato_common.codec.form import CodecForm, LossWeights
from sfumato_common.codec.losses import (
    PatchJudge,
    RandomFeatures,
    energy_loss,
    gradient_loss,
    judge_loss,
    pixel_loss,
)
from sfumato_common.codec.network import Codec, half_precision
from sfumato_common.codec.views import views

_LEARNING_RATE, _LATER_RATE, _JUDGE_RATE = 1e-3, 3e-4, 2e-4
_WARM = 0.03  # share of a training in which the rate rises, and after which it falls along a cosine
_JUDGED_FROM = 0.3  # share of a training after which a discriminator's word counts
_AVERAGE = 0.998
_LARGEST_NORM = 1.0


@dataclass(frozen=True)
class Budget:
    """How long a training goes on: `steps` batches of `batch` images, or until `seconds` are over, whichever is first.

    One of the two must be given: a training ends.
    """

    steps: int | None = None
    seconds: float | None = None
    batch: int = 32

    def progress(self, step: int, started: float) -> float:
        """Share of the training that is over."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(step / self.steps)
        if self.seconds is not None:
            shares.append((time.monotonic() - started) / self.seconds)
        return max(shares)


class Step(NamedTuple):
    """What is told of a step: its number, the share of the training that is over, and the loss of pixels in dB."""

    number: int
    progress: float
    psnr: float


class Trained(NamedTuple):
    """A codec after its training: the moving average of its weights, steps taken and seconds passed."""

    codec: Codec
    steps: int
    seconds: float


def best_device() -> torch.device:
    """An accelerator where torch finds one; a codec is public, so that rounded products may train it."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_codec(
    form: CodecForm,
    losses: LossWeights,
    images: Tensor,
    budget: Budget,
    seed: int,
    tell: Callable[[Step], None] = lambda step: None,
    device: torch.device | None = None,
    start: Codec | None = None,
) -> Trained:
    """A codec for public `images` uint8 [M, C, S, S]; bit for bit the same with the same steps and seed on one CPU.

    It goes on from `start`, at a third of the rate, where there is one.
    """
    assert budget.steps is not None or budget.seconds is not None, "a training ends"
    device = device or best_device()
    rng = torch.Generator().manual_seed(seed)
    run = _Run(form, losses, device, rng, start)
    images, started, step = images.to(device), time.monotonic(), 0
    recent: list[Tensor] = []
    told = started
    while (progress := budget.progress(step, started)) < 1.0:
        rows = torch.randint(len(images), (budget.batch,), generator=rng)
        recent.append(run.step(views(images, rows, rng), step, progress))
        step += 1
        # reading a loss waits for the accelerator: once a second
        if time.monotonic() - told > 1.0:
            tell(Step(step, progress, _psnr(recent)))
            recent, told = [], time.monotonic()
    if recent:
        tell(Step(step, 1.0, _psnr(recent)))
    return Trained(rounded(run.average.cpu()), step, time.monotonic() - started)


def rounded(codec: Codec) -> Codec:
    """The codec with weights that half precision has: what a file holds."""
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.copy_(parameter.half())
    return codec.eval().requires_grad_(False)


def _psnr(recent: list[Tensor]) -> float:
    return 10.0 * math.log10(4.0 / max(1e-9, float(torch.stack(recent).mean())))


class _Run:
    """Networks and optimisers of one training."""

    def __init__(
        self,
        form: CodecForm,
        losses: LossWeights,
        device: torch.device,
        rng: torch.Generator,
        start: Codec | None,
    ) -> None:
        self.losses, self.device, self.rng = losses, device, rng
        self.rate = _LEARNING_RATE if start is None else _LATER_RATE
        codec = Codec(form, rng) if start is None else copy.deepcopy(start).train().requires_grad_(True)
        self.codec = codec.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.codec)
        self.features = RandomFeatures(form.channels, rng).to(device)
        self.judge = PatchJudge(form.channels, rng).to(device)
        self.slow = torch.optim.AdamW(self.codec.parameters(), self.rate, betas=(0.9, 0.99), weight_decay=1e-4)
        self.fast = torch.optim.Adam(self.judge.parameters(), _JUDGE_RATE, betas=(0.5, 0.99))

    def step(self, real: Tensor, number: int, progress: float) -> Tensor:
        """One step on images [N, C, S, S]; the squared error of their pixels."""
        for group in self.slow.param_groups:
            group["lr"] = self.rate * _schedule(progress)
        codes = self.codec.encode(real)
        if self.losses.noise:
            codes = codes + self.losses.noise * torch.randn(codes.shape, generator=self.rng).to(codes)
        made = self.codec.decode(codes)
        with half_precision(self.device):
            squared, total = self._losses(made, real)
            if self.losses.adversarial:
                total = total + self._judged(made, real, self.codec.plain(codes).detach(), progress)
        _descend(total, self.codec, self.slow)
        with torch.no_grad():
            decay = min(_AVERAGE, (1.0 + number) / (10.0 + number))
            own, others = list(self.average.parameters()), list(self.codec.parameters())
            torch._foreach_lerp_(own, others, 1.0 - decay)
        return squared.detach()

    def _losses(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The squared error of pixels, and the sum of all weighted losses that need no discriminator."""
        squared, weights = pixel_loss(made, real), self.losses
        total = weights.pixel * squared
        if weights.gradient:
            total = total + weights.gradient * gradient_loss(made, real)
        if weights.feature:
            total = total + weights.feature * self.features(made, real)
        if weights.energy:
            total = total + weights.energy * energy_loss(made, real)
        return squared, total

    def _judged(self, made: Tensor, real: Tensor, plain: Tensor, progress: float) -> Tensor:
        """The discriminator takes its step; then what it says of the made images, once it knows something."""
        _descend(judge_loss(self.judge(real, plain), self.judge(made.detach(), plain)), self.judge, self.fast)
        if progress < _JUDGED_FROM:
            return made.new_zeros(())
        said: Tensor = -self.losses.adversarial * self.judge(made, plain).mean()
        return said


def _schedule(progress: float) -> float:
    return min(1.0, progress / _WARM + 0.05) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def _descend(loss: Tensor, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_NORM)
    optimiser.step()

"""phi_id and phi_class, the two classifiers that bend a walk of PLAN (Pennisi et al. 2023, section 2.2).

Both are trained on the site's own images and die with the release: they are part of nothing that a method returns. They
are no judge either. What recognises patients here knows which images a walk showed it; the gate's verifier is trained
apart from it (audit/attacks/identity.py), and neither sees the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_client.anonymise.contract import Job
from sfumato_common.generators.device import training_device
from sfumato_common.study.counted import Counted
from sfumato_common.types import AnyArray, to_unit_range

_WIDTHS = (16, 32, 64)
_SIDE = 4  # what is left of the image, so that the layer on top knows where it saw something
_LARGEST = 64  # pixels a side; finer than this a walk's images have no anatomy of their own
_GROUPS = 8
_BATCH = 64
_LEARNING_RATE = 3e-3
_SHIFT, _CONTRAST, _GRAIN = 1 / 16, 0.2, 0.1


class Recogniser(nn.Module):
    """Images [N, C, S, S] in [-1, 1] -> logits [N, K]: strided convolutions with GroupNorm, each image on its own."""

    def __init__(self, size: int, channels: int, classes: int) -> None:
        super().__init__()
        self._factor = max(1, size // _LARGEST)
        side = size // self._factor
        layers: list[nn.Module] = []
        while side > _SIDE:
            width = _WIDTHS[min(len(layers) // 3, len(_WIDTHS) - 1)]
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.GroupNorm(_GROUPS, width), nn.ReLU()]
            channels, side = width, (side + 1) // 2
        self.levels = nn.Sequential(*layers)
        self.head = nn.Linear(channels * side**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        seen = functional.avg_pool2d(x, self._factor) if self._factor > 1 else x
        logits: Tensor = self.head(self.levels(seen).flatten(1))
        return logits


@dataclass(frozen=True, eq=False)
class Identities:
    """`who` tells the N training patients apart, `what` the K labels. Neither ever leaves the site."""

    who: nn.Module
    what: nn.Module


def identities_of(job: Job[Counted], steps: int) -> Identities:
    """The two classifiers of the job's cohort, `steps` of Adam each, on the training device; kept for the release."""

    def make() -> Identities:
        images, labels, patient_index = job.cohort.everything()
        return Identities(
            fit_recogniser(images, torch.from_numpy(patient_index), job.cohort.patients, steps, job.streams.working),
            fit_recogniser(images, torch.from_numpy(labels), len(job.plan.labels), steps, job.streams.working),
        )

    return job.release.once(Identities, (steps,), make)


def anonymity(logits: Tensor) -> Tensor:
    """KL(Uniform_N || softmax) [M] of logits [M, N], in nats: 0 where an image could be anybody's."""
    return -functional.log_softmax(logits, dim=1).mean(dim=1) - math.log(logits.shape[1])


def fit_recogniser(
    images: AnyArray, targets: Tensor, classes: int, steps: int, generator: torch.Generator
) -> Recogniser:
    """A classifier of integer images [M, S, S(, 3)] by targets int64 [M], every class drawn as often; frozen."""
    device = training_device()
    with torch.random.fork_rng(devices=[]):  # the layers' own first weights are drawn anew below
        network = Recogniser(images.shape[1], images.shape[3] if images.ndim == 4 else 1, classes)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        network.head.weight *= 0.1  # starts unsure of everybody
    network.to(device)
    weights = (1.0 / torch.bincount(targets, minlength=classes).clamp(min=1).double())[targets]
    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        rows = torch.multinomial(weights, _BATCH, replacement=True, generator=generator)
        batch = _augment(torch.from_numpy(to_unit_range(images[rows.numpy()])), generator).to(device)
        optimiser.zero_grad()
        functional.cross_entropy(network(batch), targets[rows].to(device)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.requires_grad_(False).eval()


def _augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images [N, C, S, S] moved (all alike), their contrast changed, with grain: what does not change who is shown."""
    size, reach = x.shape[3], max(1, round(x.shape[3] * _SHIFT))
    down, right = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
    x = functional.pad(x, (reach,) * 4, mode="replicate")[:, :, down : down + size, right : right + size]
    contrast, grain = torch.rand(2, len(x), 1, 1, 1, generator=generator)
    x = x * (1.0 + _CONTRAST * (2.0 * contrast - 1.0))
    varied: Tensor = x + _GRAIN * grain * torch.randn(x.shape, generator=generator)
    return varied

"""A small convolutional embedding that a site trains on its own images, without labels (SimCLR: Chen et al. 2020).

Two views of an image, cropped, shifted, of other brightness and contrast and with a little noise, are to be nearer to
each other than to any other image's (NT-Xent). Views are not mirrored: a heart has its side. The network is made from
the site's training patients, all of them, and nothing of it is ever released: it lives and dies in the site.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_client.anonymise.contract import Job
from sfumato_client.dataset import Cohort
from sfumato_common.errors import DataError
from sfumato_common.generators.device import training_device
from sfumato_common.study.counted import Counted
from sfumato_common.types import AnyArray, to_unit_range

STEM = 16  # channels at full resolution, of which style is read
_WIDTHS = (32, 64)
_COARSEST = 4  # pixels a side of the last level
_QUARTERS = 4  # means of the last level, one a quarter of the image: on the phantom worth more than one mean
_HEAD = 64
_BATCH = 48  # patients
_SEEN = 256  # images at once where nothing is learnt
_LEARNING_RATE = 3e-3
_TEMPERATURE = 0.2
_SMALLEST_CROP, _BRIGHTNESS, _CONTRAST, _NOISE = 0.75, 0.2, 0.3, 0.05


class ComparingNet(nn.Module, ABC):
    """A network in whose features k-SALSA compares images; GroupNorm or fixed moments: no image knows of another."""

    centre: Tensor
    unit: Tensor

    @abstractmethod
    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Local features [N, L, S, S], of mean square 1 over the cohort, and embeddings [N, F] about its mean."""


class ContrastiveNet(ComparingNet):
    """Images [N, C, S, S] in [-1, 1] -> embeddings [N, F], about their cohort's mean; GroupNorm couples no records.

    `features` gives those of the first layer too, which has no norm: a norm would take out the contrast that is style.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, STEM, 5, padding=2)
        levels: list[nn.Module] = []
        before = STEM
        for level in range(max(2, math.ceil(math.log2(size / _COARSEST)))):
            width = _WIDTHS[min(level, len(_WIDTHS) - 1)]
            levels += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
            before = width
        self.levels = nn.Sequential(*levels)
        # only the loss sees the head: what is before it keeps more of the image (Chen et al., section 4.2)
        self.head = nn.Sequential(nn.Linear(_QUARTERS * before, _HEAD), nn.ReLU(), nn.Linear(_HEAD, _HEAD // 2))
        self.register_buffer("centre", torch.zeros(_QUARTERS * before))
        self.register_buffer("unit", torch.ones(()))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Local features [N, STEM, S, S] at full resolution, of mean square 1 over the cohort; embeddings [N, F]."""
        local = functional.relu(self.stem(x + 1.0))  # moved, so that the border's padding is black
        last = self.levels(local)
        half = last.shape[3] // 2  # of 3 or 4 pixels
        quarters = functional.avg_pool2d(last, last.shape[3] - half, stride=half)
        return local * self.unit, quarters.flatten(1) - self.centre

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [N, F]."""
        return self.features(x)[1]


def embedding_of(job: Job[Counted], steps: int) -> ContrastiveNet:
    """The site's embedding, on the CPU, its weights fixed: the release's `style_net`, else trained for `steps`.

    Made once a release. Raises DataError when the cohort has nothing to contrast.
    """
    given = job.release.style_net
    settings = ("given",) if given is not None else (steps,)
    return job.release.once(ContrastiveNet, settings, lambda: train(job.cohort, steps, job.streams.working, given))


def train(
    cohort: Cohort, steps: int, rng: torch.Generator, weights: Mapping[str, AnyArray] | None = None
) -> ContrastiveNet:
    """A network trained by `steps` of Adam on one image each of a batch of patients; with `weights`, taken as it is."""
    images, _, patient_index = cohort.everything()
    if cohort.patients < 2:
        raise DataError("a contrastive embedding needs images of several patients; the cohort is too small for it")
    device = training_device()
    net = _initial(to_unit_range(images[:1]).shape[2], 3 if images.ndim == 4 else 1, rng).to(device)
    if weights is None:
        _learn(net, images, torch.as_tensor(patient_index), cohort.patients, steps, rng)
    else:
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(torch.as_tensor(weights[name]))
    net.requires_grad_(False)
    calibrate(net, images)
    return net.cpu()


def _learn(
    net: ContrastiveNet, images: AnyArray, patient_index: Tensor, patients: int, steps: int, rng: torch.Generator
) -> None:
    device = net.unit.device
    optimiser = torch.optim.Adam(net.parameters(), lr=_LEARNING_RATE)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        rows = _one_of_each(patient_index, patients, rng)
        x = torch.from_numpy(to_unit_range(images[rows.numpy()])).to(device)
        loss = nt_xent(*(net.head(net(view(x, rng))) for _ in range(2)))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _one_of_each(patient_index: Tensor, patients: int, rng: torch.Generator) -> Tensor:
    """Rows of one image each of a batch of patients: two images of one patient must not push each other away."""
    shuffled = torch.randperm(len(patient_index), generator=rng)
    first = torch.full((patients,), -1, dtype=torch.int64)
    first[patient_index[shuffled]] = shuffled
    return first[torch.randperm(patients, generator=rng)[:_BATCH]]


def nt_xent(one: Tensor, two: Tensor) -> Tensor:
    """The normalised, temperature-scaled cross entropy of two views [N, F] (Chen et al. 2020, equation 1), a scalar."""
    both = functional.normalize(torch.cat([one, two]), dim=1)
    similar = both @ both.T / _TEMPERATURE
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    other = torch.arange(len(both), device=both.device).roll(len(one))
    return functional.cross_entropy(similar.masked_fill(itself, -torch.inf), other)


def view(x: Tensor, rng: torch.Generator) -> Tensor:
    """A random view of each image [N, C, S, S] in [-1, 1]: cropped and shifted, other light, a little noise."""
    count = len(x)
    scale, across, down, light, contrast = torch.rand(5, count, generator=rng)
    scale = _SMALLEST_CROP + (1.0 - _SMALLEST_CROP) * scale
    corner = torch.zeros(count, 2, 3)
    corner[:, 0, 0] = corner[:, 1, 1] = scale
    corner[:, 0, 2], corner[:, 1, 2] = (1.0 - scale) * (2.0 * across - 1.0), (1.0 - scale) * (2.0 * down - 1.0)
    places = functional.affine_grid(corner, list(x.shape), align_corners=False).to(x.device)
    cut = functional.grid_sample(x, places, padding_mode="border", align_corners=False)
    gain = (1.0 + _CONTRAST * (2.0 * contrast - 1.0)).to(x.device)[:, None, None, None]
    shift = (_BRIGHTNESS * (2.0 * light - 1.0)).to(x.device)[:, None, None, None]
    noise = torch.randn(x.shape, generator=rng).to(x.device)
    seen: Tensor = (cut * gain + shift + _NOISE * noise).clamp(-1.0, 1.0)
    return seen


def calibrate(net: ComparingNet, images: AnyArray) -> None:
    """Set `unit` and `centre` over the cohort."""
    square, pooled = 0.0, torch.zeros_like(net.centre)
    with torch.no_grad():
        for start in range(0, len(images), _SEEN):
            x = torch.from_numpy(to_unit_range(images[start : start + _SEEN])).to(pooled.device)
            local, embedded = net.features(x)
            square += float(local.square().mean()) * len(x) / len(images)
            pooled += embedded.sum(dim=0) / len(images)
        net.unit.copy_(torch.tensor(1.0 / math.sqrt(max(square, 1e-12))))
        net.centre.copy_(pooled)


def _initial(size: int, channels: int, rng: torch.Generator) -> ContrastiveNet:
    """A network with weights drawn from `rng` (He et al. 2015): torch's own start draws from its global state."""
    with torch.device("meta"):
        net = ContrastiveNet(size, channels)
    net.to_empty(device="cpu")
    with torch.no_grad():
        net.centre.zero_()
        net.unit.fill_(1.0)
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1:
                deviation = math.sqrt(2.0 / parameter[0].numel())
                parameter.copy_(deviation * torch.randn(parameter.shape, generator=rng))
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return net

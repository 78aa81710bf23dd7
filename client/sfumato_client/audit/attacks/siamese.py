"""Networks that learn who is on an image, and how: SimCLR (Chen et al. 2020) with further images of a patient as views
(Khosla et al. 2020). Shared by the gate's verifier (`identity.py`) and the attacks that learn.

All on the CPU, accelerator or not: the same question gets the same answer. Every generator is seeded by its caller.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.metrics.nearest import images_at_once
from sfumato_common.types import ByteImages, to_unit_range

SIDE = 64
_WIDTHS, _STEM = (16, 32, 64, 64), 16
_LENGTH = 128
_TEMPERATURE = 0.1
# radians, and shares of the image's own scale; chosen on training patients of public chest X-ray sites: wider ones know
# further images of a patient no better, and copies under noise worse
_TURN, _ZOOM, _SHIFT, _CONTRAST, _GRAIN = 0.05, 0.08, 0.08, 0.3, 0.1
_LEAST_SPREAD = 1e-3  # of an image's grey levels in [-1, 1]


class Network(nn.Module):
    """Standardised images [N, C, S, S] -> unit vectors [N, E], each image on its own.

    Images of more than 64 pixels a side pass a level of stride 4 first, which keeps what is one pixel wide.
    """

    def __init__(self, size: int, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        if size > SIDE:
            levels = [nn.Conv2d(channels, _STEM, 7, 4, 3), nn.GroupNorm(8, _STEM), nn.ReLU()]
            channels, size = _STEM, (size + 3) // 4
        for width in _WIDTHS:
            levels += [nn.Conv2d(channels, width, 3, 2, 1), nn.GroupNorm(8, width), nn.ReLU()]
            channels, size = width, (size + 1) // 2
        self.levels = nn.Sequential(*levels)
        self.head = nn.Linear(channels * size**2, _LENGTH)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, S, S] -> [N, E]."""
        return functional.normalize(self.head(self.levels(x).flatten(1)), dim=1)


def fit_identities(
    network: nn.Module,
    images: Callable[[Tensor], Tensor],
    compact_index: Tensor,
    rng: torch.Generator,
    steps: int,
    learning_rate: float,
    patients: int = 64,
) -> None:
    """Contrastive training on two views of each of `patients` a step, of two of a patient's images where there are.

    `images` gives standardised rows; `compact_index` [N] says whose they are, 0 .. patients - 1.
    """
    counts = torch.bincount(compact_index)
    order, starts = torch.argsort(compact_index, stable=True), counts.cumsum(0) - counts
    batch = min(patients, len(counts))
    target = torch.arange(2 * batch).roll(batch)
    itself = torch.eye(2 * batch, dtype=torch.bool)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=learning_rate, total_steps=steps)
    for _ in range(steps):
        who = torch.randperm(len(counts), generator=rng)[:batch].repeat(2)
        rows = order[starts[who] + (torch.rand(2 * batch, generator=rng) * counts[who]).long()]
        vectors = network(augmented(images(rows), rng))
        scores = (vectors @ vectors.T / _TEMPERATURE).masked_fill(itself, -torch.inf)
        optimiser.zero_grad()
        functional.cross_entropy(scores, target).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def standardised(images: ByteImages, largest: int = SIDE) -> Tensor:
    """Integer images -> [N, C, S, S] of at most `largest` pixels a side, each of mean 0 and deviation 1."""
    parts, size = [], images_at_once(images)
    for at in range(0, len(images), size):
        x = torch.from_numpy(to_unit_range(np.asarray(images[at : at + size])))
        x = functional.adaptive_avg_pool2d(x, min(largest, x.shape[3]))
        x = x - x.mean(dim=(1, 2, 3), keepdim=True)
        parts.append(x / x.std(dim=(1, 2, 3), keepdim=True).clamp(min=_LEAST_SPREAD))
    return torch.cat(parts)


def augmented(x: Tensor, rng: torch.Generator) -> Tensor:
    """Images [N, C, S, S] turned, zoomed, moved, blurred, brighter or darker, with grain: each by itself."""
    count = len(x)
    turn, zoom, blur, contrast, level, grain = torch.rand(6, count, generator=rng)
    angle, scale = _TURN * (2 * turn - 1), 1 + _ZOOM * (2 * zoom - 1)
    move = _SHIFT * (2 * torch.rand(count, 2, generator=rng) - 1)
    rows = [torch.stack([scale * angle.cos(), -scale * angle.sin(), move[:, 0]], dim=1)]
    rows.append(torch.stack([scale * angle.sin(), scale * angle.cos(), move[:, 1]], dim=1))
    places = functional.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    x = functional.grid_sample(x, places, padding_mode="border", align_corners=False)
    soft = functional.avg_pool2d(functional.pad(x, (1,) * 4, mode="replicate"), 3, 1)
    blur, contrast, level, grain = (value.view(-1, 1, 1, 1) for value in (blur, contrast, level, grain))
    x = x + (2 * blur - 1).clamp(min=0) * (soft - x)
    x = x * (1 + _CONTRAST * (2 * contrast - 1)) + _CONTRAST * (2 * level - 1)
    varied: Tensor = x + _GRAIN * grain * torch.randn(x.shape, generator=rng)
    return varied

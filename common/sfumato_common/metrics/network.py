"""The network that benches train on a set and test on real patients, and whose features compare sets (arrays only).

Deeper than `utility.Classifier`, whose shape is small because it travels: each level halves the image, four times and
until 4 x 4 are left, so that a 64 px lung is seen whole. On the real sites' training and validation patients that was
worth more than width or steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.rows import by_chunks
from sfumato_common.types import AnyArray, to_unit_range

Float64 = npt.NDArray[np.float64]
_WIDTHS = (16, 32, 64)
_BATCH = 64
_LEARNING_RATE = 5e-3
_CONTRAST = 0.2


class Network(nn.Module):
    """Strided convolutions with GroupNorm, global mean pooling, one linear layer: [N, C, S, S] to [N, K]."""

    def __init__(self, size: int, channels: int, classes: int) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        for level in range(max(4, math.ceil(math.log2(size)) - 2)):
            width = _WIDTHS[min(level, len(_WIDTHS) - 1)]
            convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1)
            levels.append(nn.Sequential(convolution, nn.GroupNorm(8, width), nn.ReLU()))
            channels = width
        self.levels = nn.ModuleList(levels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, C, S, S] in [-1, 1]."""
        for level in self.levels:
            x = level(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Mean activations of every level, [N, F], of images [N, C, S, S] in [-1, 1]."""
        means = []
        for level in self.levels:
            x = level(x)
            means.append(x.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


@dataclass(frozen=True, eq=False)
class Trained:
    """A fitted network and the device it is on."""

    network: Network
    device: torch.device

    def probabilities(self, images: AnyArray) -> Float64:
        """Probabilities [N, K] of integer images [N, S, S] or [N, S, S, 3]."""
        return self._score(images, lambda x: functional.softmax(self.network(x).double(), dim=1))

    def features(self, images: AnyArray) -> Float64:
        """Features [N, F] of integer images [N, S, S] or [N, S, S, 3]; see `Network.features`."""
        return self._score(images, self.network.features)

    def _score(self, images: AnyArray, function: Callable[[Tensor], Tensor]) -> Float64:
        def rows(part: Tensor) -> Tensor:
            return function(torch.from_numpy(to_unit_range(part.numpy())).to(self.device)).cpu()

        return by_chunks(rows, torch.from_numpy(images)).double().numpy()


def fit_network(
    images: AnyArray,
    labels: npt.NDArray[np.int64],
    classes: int,
    seed: int,
    steps: int = 1000,
    device: torch.device | None = None,
) -> Trained:
    """Train on integer images [N, S, S(, 3)] with labels [N]; deterministic in `seed` on the CPU.

    Adam with a one-cycle rate on batches balanced by class and `varied`.
    """
    place = device or torch.device("cpu")
    generator = torch.Generator().manual_seed(seed)
    data, targets = torch.from_numpy(to_unit_range(images)).to(place), torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(data.shape[2], data.shape[1], classes).to(place)
    weights = (1.0 / torch.bincount(targets, minlength=classes).clamp(min=1).float())[targets]
    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        rows = torch.multinomial(weights, _BATCH, replacement=True, generator=generator)
        batch = augment(data[rows.to(place)], generator)
        loss = functional.cross_entropy(network(batch), targets[rows].to(place))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return Trained(network, place)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images [N, C, S, S] mirrored, moved by up to S / 28 (all alike), their contrast changed by up to 20 %.

    Synthetic sets differ from real ones in place and contrast more than classes do: without this a network learns the
    difference, and with much more it cannot read real 64 px lungs either. Chosen on validation patients: real images'
    of the real sites, real and synthetic ones' of the phantom.
    """
    size, reach = x.shape[3], max(1, x.shape[3] // 28)
    mirrored, contrast = torch.rand(2, len(x), 1, 1, 1, generator=generator).to(x.device)
    x = torch.where(mirrored < 0.5, x.flip(3), x)
    down, right = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
    x = functional.pad(x, (reach,) * 4, mode="replicate")[:, :, down : down + size, right : right + size]
    stretched: Tensor = x * (1.0 + _CONTRAST * (2.0 * contrast - 1.0))
    return stretched

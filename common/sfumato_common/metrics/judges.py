"""Judges of a labelled set: ordinary networks, trained as anyone would who downloads it, then tested on real patients.

Train on synthetic, test on real (Esteban et al. 2017). `network.py` was chosen to serve the sets that are made here,
and so hides what they lack: these were not. They normalise batches, see images moved, turned and exposed anew, and stop
after few steps. They are tools of benches and researchers: arrays in, figures out, nothing of them ever travels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.metrics.quick import fit_quick
from sfumato_common.types import AnyArray, to_unit_range

Float64 = npt.NDArray[np.float64]
_WIDTHS = (24, 48, 96, 128)
_BATCH, _SCORED = 64, 256
# deviations of the affine map's six numbers, and how far contrast (a factor) and brightness (a term) move
_MOVED, _CONTRAST, _BRIGHTNESS = 0.08, 0.3, 0.3
_WEIGHT_DECAY = 1e-3


def ordinary_cnn(channels: int, classes: int) -> nn.Module:
    """Four blocks of 3 x 3 convolution, batch norm (Ioffe and Szegedy 2015) and max pooling: [N, C, S, S] to [N, K]."""
    layers: list[nn.Module] = []
    for width in _WIDTHS:
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        # rectified after the pooling, which is the same and a quarter of the work
        layers += [convolution, nn.BatchNorm2d(width), nn.MaxPool2d(2), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels, classes))


def resnet18(channels: int, classes: int) -> nn.Module:
    """ResNet-18 (He et al. 2016, table 1), in the layout and with the start of torchvision's: [N, C, S, S] to [N, K].

    Written out here: torchvision's wheel of the package index does not load beside a torch without CUDA.
    """
    stem = [nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1), nn.ReLU()]
    blocks: list[nn.Module] = []
    before = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [_Block(before, width, stride), _Block(width, width, 1)]
        before = width
    network = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class _Block(nn.Module):
    """Basic residual block (He et al. 2016, figure 5 left); a 1 x 1 projection where its shape changes (option B)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        self.shortcut: nn.Module = nn.Identity()
        if before != width:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Rectified sum of the two convolutions and the shortcut: [N, C, S, S] to [N, W, S / stride, S / stride]."""
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


@dataclass(frozen=True)
class Recipe:
    """A judge's network, and how it is trained."""

    network: Callable[[int, int], nn.Module]
    steps: int
    learning_rate: float


QUICK = "quick"
# To add a judge: one line here.
JUDGES = {"cnn": Recipe(ordinary_cnn, 400, 2e-3), "resnet18": Recipe(resnet18, 200, 1e-3)}


@dataclass(frozen=True, eq=False)
class Judge:
    """A fitted judge and the device it is on."""

    network: nn.Module
    device: torch.device

    def probabilities(self, images: AnyArray) -> Float64:
        """Probabilities [N, K] of integer images [N, S, S] or [N, S, S, 3]."""
        return functional.softmax(self._run(self.network, images), 1).numpy()

    def features(self, images: AnyArray) -> Float64:
        """What the linear layer reads, [N, F], of integer images [N, S, S] or [N, S, S, 3]."""
        assert isinstance(self.network, nn.Sequential)
        before = next(at for at, layer in enumerate(self.network) if isinstance(layer, nn.Flatten))
        return self._run(self.network[: before + 1], images).numpy()

    def _run(self, network: nn.Module, images: AnyArray) -> Tensor:
        parts = [images[first : first + _SCORED] for first in range(0, len(images), _SCORED)]
        with torch.no_grad():
            found = [network(torch.from_numpy(to_unit_range(x)).to(self.device)).cpu() for x in parts]
        return torch.cat(found).double()


def fit_judge(
    name: str,
    images: AnyArray,
    labels: npt.NDArray[np.int64],
    classes: int,
    seed: int,
    steps: int | None = None,
    device: torch.device | None = None,
) -> Judge:
    """Train one of `JUDGES` on integer images [N, S, S(, 3)] with labels [N]; deterministic in `seed` on the CPU.

    Batches and how their images vary are drawn on the CPU, whatever the device (the CPU by default).

    `quick` is fitted without steps, on the CPU (`quick.py`). The others by AdamW (Loshchilov and Hutter 2019) with a
    one-cycle rate on batches that hold every class of the set alike.
    """
    if name == QUICK:
        return Judge(fit_quick(images, labels, classes, seed), torch.device("cpu"))
    recipe = JUDGES[name]
    steps, place = steps or recipe.steps, device or torch.device("cpu")
    data, targets = torch.from_numpy(to_unit_range(images)), torch.from_numpy(labels)
    rows_of = [torch.nonzero(targets == k)[:, 0] for k in np.unique(labels)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # a quarter faster so on a CPU
        network = recipe.network(data.shape[1], classes).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps)
        for _ in range(steps):
            each = max(1, _BATCH // len(rows_of))
            rows = torch.cat([own[torch.randint(len(own), (each,))] for own in rows_of])
            loss = functional.cross_entropy(network(_varied(data[rows]).to(place)), targets[rows].to(place))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return Judge(network.eval(), place)


def _varied(x: Tensor) -> Tensor:
    """Images [N, C, S, S]: the batch mirrored or not, each image moved by a small affine map and exposed anew."""
    if torch.rand(()) < 0.5:
        x = x.flip(3)
    count = len(x)
    maps = torch.eye(2, 3).repeat(count, 1, 1) + _MOVED * torch.randn(count, 2, 3)
    grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    contrast, brightness = 2.0 * torch.rand(2, count, 1, 1, 1) - 1.0
    exposed: Tensor = x * (1.0 + _CONTRAST * contrast) + _BRIGHTNESS * brightness
    return exposed

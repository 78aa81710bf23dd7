"""A feature space in which anyone can compare sets of images: random convolutions from a public seed.

Features of photographs know no radiographs, and are a download. A random network's features need neither and rank
generators sensibly off ImageNet (Naeem et al. 2020, section 5). The other space, of a net trained on real images
(`network.py`), sees what its task needs; it has seen patients, so what it says stays where they are. A third is that
of a given encoder, a public network whose file somebody brings (`encoded_features`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.encoders.encoder import Encoder
from sfumato_common.rows import by_chunks
from sfumato_common.types import AnyArray, to_unit_range

Float64 = npt.NDArray[np.float64]
RANDOM_SEED = 20_200_223  # public: everybody measures in the same space
_RANDOM_WIDTHS = (16, 24, 32)
_GRID = 4


class RandomConvolutions(nn.Module):
    """Untrained network: [N, C, H, W] to [N, 2 x 72] means and deviations of every level, and [N, 512] on a 4 x 4 grid.

    Weights are He normals from `RANDOM_SEED`, the same on every machine.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(RANDOM_SEED)
        self.levels = nn.ModuleList()
        for width in _RANDOM_WIDTHS:
            level = nn.Conv2d(channels, width, 3, stride=2, padding=1, padding_mode="replicate", bias=False)
            with torch.no_grad():
                level.weight.normal_(0.0, (2.0 / (9 * channels)) ** 0.5, generator=generator)
            self.levels.append(level.requires_grad_(False))
            channels = width

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Statistics of the levels' responses, and the last level's mean responses by place."""
        statistics = []
        for level in self.levels:
            x = functional.relu(level(x))
            statistics += [x.mean(dim=(2, 3)), x.std(dim=(2, 3))]
        return torch.cat(statistics, dim=1), functional.adaptive_avg_pool2d(x, _GRID).flatten(1)


def random_features(images: AnyArray, device: torch.device | None = None) -> Float64:
    """Features [N, 144] of integer images [N, S, S] or [N, S, S, 3] by which sets are compared."""
    return _random(images, device, 0)


def random_grid(images: AnyArray, device: torch.device | None = None) -> Float64:
    """Features [N, 512] of integer images [N, S, S] or [N, S, S, 3] that keep the place, for linear models."""
    return _random(images, device, 1)


def encoded_features(images: AnyArray, encoder: Encoder) -> Float64:
    """Embeddings [N, D] of integer images [N, S, S] or [N, S, S, 3] in a given encoder (see `encoders`).

    The space in which the field compares images (Heusel et al. 2017), where such a network is at hand; it has seen none
    of a study's patients, so that what it says of published images anyone may compute.
    """
    place = encoder.mean.device

    def features(rows: Tensor) -> Tensor:
        found: Tensor = encoder(torch.from_numpy(to_unit_range(rows.numpy())).to(place))
        return found.cpu()

    return by_chunks(features, torch.from_numpy(images)).double().numpy()


def _random(images: AnyArray, device: torch.device | None, part: int) -> Float64:
    network = RandomConvolutions(1 if images.ndim == 3 else 3).to(device or torch.device("cpu"))

    def features(rows: Tensor) -> Tensor:
        found: Tensor = network(torch.from_numpy(to_unit_range(rows.numpy())).to(device))[part]
        return found.cpu()

    return by_chunks(features, torch.from_numpy(images)).double().numpy()

"""A classifier of seconds: ridge regression on random convolutions (Rahimi and Recht 2007; Saxe et al. 2011).

Nothing but the last layer is fitted, in closed form. It ranks images about as a small network does, knows no shape
finer than a sixteenth of the side, and its probabilities are no more than ranks: no judge of what a set is worth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.types import AnyArray, to_unit_range

_FILTERS, _WIDTH, _CELLS, _SIDE = 64, 5, 4, 32
_RIDGE = 1.0  # of standardised features, an image's share
_CHUNK = 512


class RandomConvolutions(nn.Module):
    """Fixed filters of mean zero over images of their own mean and contrast, rectified, averaged over 4 x 4 cells."""

    filters: Tensor

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(_FILTERS, channels, _WIDTH, _WIDTH, generator=generator) / _WIDTH
        self.register_buffer("filters", filters - filters.mean((2, 3), keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, S, S] to [N, 64, 4, 4]."""
        x = functional.avg_pool2d(x, max(1, x.shape[-1] // _SIDE))
        x = (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-3)
        answers = functional.relu(functional.conv2d(x, self.filters, stride=2))
        found: Tensor = functional.adaptive_avg_pool2d(answers, _CELLS)
        return found


def fit_quick(images: AnyArray, labels: npt.NDArray[np.int64], classes: int, seed: int) -> nn.Sequential:
    """Fit on integer images [N, S, S(, 3)], S at least 16, with labels [N], every class of the same weight.

    Gives a network [N, C, S, S] to [N, K]; deterministic in `seed`.
    """
    first = to_unit_range(images[:1])
    convolutions, flat = RandomConvolutions(first.shape[1], seed), nn.Flatten()
    with torch.no_grad():
        parts = [torch.from_numpy(to_unit_range(images[at : at + _CHUNK])) for at in range(0, len(images), _CHUNK)]
        features = torch.cat([flat(convolutions(part)) for part in parts])
        middle, spread = features.mean(0), features.std(0, correction=0) + 1e-6
        features = (features - middle) / spread
        targets = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
        share = targets.mean(0)
        weights = (targets / share.clamp(min=1e-9)).sum(1) / (share > 0).sum()
        weighted = features * weights[:, None]
        products = (weighted.T @ features).double() / len(features)
        found = torch.linalg.solve(
            products + _RIDGE * torch.eye(len(products), dtype=torch.float64),
            (weighted.T @ (2 * targets - 1)).double() / len(features),
        ).float()
        last = nn.Linear(len(found), classes)
        last.weight.copy_((found / spread[:, None]).T)
        last.bias.copy_(-(middle / spread) @ found)
    return nn.Sequential(convolutions, flat, last)

"""Multi-scale conditional invertible network on whitened images: CADP's, with weights that do not grow with the pixels.

CADP (arXiv 2207.14625) ends in couplings that connect all pixels: 77 million weights at 512 px in colour, of which
noise of DP-SGD leaves nothing. Here every level halves the image by the orthonormal Haar transform (as the conditional
INN of Ardizzone et al. 2019), passes couplings under fixed permutations of channels, and keeps the averages; the
details leave as latents (factored out as in Dinh et al. 2017). Fully connected couplings join what the last level
keeps, at most LARGEST_REST pixels a side of any image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.flow.cinn import convolutional, coupled, fully_connected, uncoupled
from sfumato_common.generators.flow.couplings import COUPLINGS
from sfumato_common.generators.flow.flows import Flow
from sfumato_common.generators.flow.settings import LARGEST_REST

# a 2 x 2 block's average and its three differences; symmetric, and its own inverse
_HAAR = 0.5 * torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])


class MultiscaleINN(Flow):
    """`levels` of Haar and `steps` couplings, then `dense` couplings of what is left of images of `size`."""

    def __init__(
        self,
        channels: int,
        classes: int,
        levels: int,
        steps: int,
        hidden: int,
        coupling: str = "affine",
        *,
        size: int,
        dense: int = 2,
    ) -> None:
        super().__init__(channels)
        assert size <= LARGEST_REST * 2**levels, "the plan has levels enough"
        terms = classes, hidden, COUPLINGS[coupling]
        self.levels = nn.ModuleList(
            nn.ModuleList(convolutional(4 * channels, step, *terms) for step in range(steps)) for _ in range(levels)
        )
        left = 4 * channels * (size // 2**levels) ** 2
        self.dense = nn.ModuleList(fully_connected(left, step, *terms) for step in range(dense))

    def _forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        total, parts = u.new_zeros(u.shape[0]), []
        for level in self.levels:
            if level is not self.levels[0]:
                u, details = self._apart(u)
                parts.append(details)
            u, total = coupled(level, halved(u), condition, total)
        flat, total = coupled(self.dense, u.flatten(1), condition, total)
        v = doubled(flat.reshape(u.shape))
        for details in reversed(parts):
            v = doubled(torch.cat([v, details], dim=1))
        return v, total

    def _inverse(self, v: Tensor, condition: Tensor) -> Tensor:
        parts = []
        for _ in self.levels[1:]:
            v, details = self._apart(halved(v))
            parts.append(details)
        u = halved(v)
        u = uncoupled(self.dense, u.flatten(1), condition).reshape(u.shape)
        for level in reversed(self.levels):
            u = doubled(uncoupled(level, u, condition))
            if parts:
                u = torch.cat([u, parts.pop()], dim=1)
        return u

    def _apart(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Averages [N, C, H, W], which go on, and details [N, 3 C, H, W], which leave."""
        return u[:, : self.channels], u[:, self.channels :]


def halved(u: Tensor) -> Tensor:
    """The orthonormal Haar transform: [N, C, H, W] -> [N, 4 C, H / 2, W / 2], the C averages first."""
    blocks = functional.pixel_unshuffle(u, 2)
    blocks = blocks.reshape(u.shape[0], u.shape[1], 4, *blocks.shape[2:])
    return torch.einsum("ij,ncjhw->nichw", _HAAR.to(u), blocks).flatten(1, 2)


def doubled(u: Tensor) -> Tensor:
    """Inverse of `halved`."""
    bands = u.reshape(u.shape[0], 4, u.shape[1] // 4, *u.shape[2:])
    blocks = torch.einsum("ij,njchw->ncihw", _HAAR.to(u), bands).flatten(1, 2)
    return functional.pixel_shuffle(blocks, 2)

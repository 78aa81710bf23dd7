"""Projection discriminator fit for DP-SGD (Miyato and Koyama 2018), and its logistic losses.

GroupNorm only and zero padding: no layer couples records or has buffers, and every layer has an exact per-record
gradient that the book-keeping engine knows. No gradient penalty: R1 needs second derivatives a record, about eight
times the step. No minibatch statistics: they couple records.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

_FEWEST_LAYERS = 3
_COARSEST = 8  # pixels a side that larger images are brought down to


class Discriminator(nn.Module):
    """Images [N, C, S, S] and conditions [N, K] -> logits [N] that they are real; deeper for a larger `size`."""

    private_engine: ClassVar[str] = "bookkeeping"

    def __init__(self, channels: int, classes: int, width: int, size: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        depth = max(_FEWEST_LAYERS, (size // _COARSEST - 1).bit_length())
        for level in range(depth):
            out = width if level <= depth - _FEWEST_LAYERS else 2 * width
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GroupNorm(out // 8, out), nn.LeakyReLU(0.2)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 1)
        self.projection = nn.Linear(classes, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Logits [N] that an image is real."""
        pooled = self.features(x).mean(dim=(2, 3))
        logits: Tensor = self.head(pooled)[:, 0] + (self.projection(condition) * pooled).sum(dim=1)
        return logits


def real_loss(forward: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    """Logistic loss of the discriminator on real images, one value a record [N]."""
    return functional.softplus(-forward(x, condition))


def fake_loss(forward: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    """Logistic loss of the discriminator on generated images, one value a record [N]."""
    return functional.softplus(forward(x, condition))

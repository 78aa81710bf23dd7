"""Small conditional GLOW (Kingma and Dhariwal 2018) on whitened images, exactly the identity at the start.

Activation normalisation starts at one and zero instead of at a batch's statistics: a data-dependent start would be an
unaccounted release. 1x1 convolutions are L U with a positive diagonal; couplings end in a layer of zeros. There are no
splits, so latents keep the images' shape. Labels enter one-hot, [N, K]. Every step works per record, under vmap too.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.models.whitening import standard_normal_log_prob

# Couplings scale by exp(s), |s| < this: an invertible step that DP noise cannot make explode.
LARGEST_LOG_SCALE = 1.0


class FlowStep(nn.Module):
    """Actnorm, invertible 1x1 convolution, affine coupling on [N, C, H, W]; `swapped` picks the half that changes."""

    def __init__(self, channels: int, classes: int, hidden: int, swapped: bool) -> None:
        super().__init__()
        self.swapped = swapped
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.lower = nn.Parameter(torch.zeros(channels, channels))
        self.upper = nn.Parameter(torch.zeros(channels, channels))
        self.log_diagonal = nn.Parameter(torch.zeros(channels))
        half = channels // 2
        self.inward = nn.Conv2d(half + classes, hidden, 3, padding=1)
        self.across = nn.Conv2d(hidden, hidden, 1)
        self.outward = nn.Conv2d(hidden, 2 * half, 3, padding=1)
        for parameter in self.outward.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] -> the same shape and log|det| [N]."""
        positions = x.shape[2] * x.shape[3]
        x = x * self.log_scale.exp()[:, None, None] + self.shift[:, None, None]
        x = _mixed(x, self._mixing())
        constant = positions * (self.log_scale.sum() + self.log_diagonal.sum())
        kept, changed = self._halves(x)
        log_scale, shift = self._coupling(kept, condition)
        changed = changed * log_scale.exp() + shift
        return self._joined(kept, changed), constant + log_scale.flatten(1).sum(dim=1)

    def inverse(self, x: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `forward`."""
        kept, changed = self._halves(x)
        log_scale, shift = self._coupling(kept, condition)
        x = self._joined(kept, (changed - shift) * (-log_scale).exp())
        x = _mixed(x, torch.linalg.inv(self._mixing()))
        return (x - self.shift[:, None, None]) * (-self.log_scale).exp()[:, None, None]

    def _mixing(self) -> Tensor:
        lower = torch.tril(self.lower, -1) + torch.eye(len(self.lower))
        return lower @ (torch.triu(self.upper, 1) + torch.diag(self.log_diagonal.exp()))

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, dim=1)
        return (second, first) if self.swapped else (first, second)

    def _joined(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat([changed, kept] if self.swapped else [kept, changed], dim=1)

    def _across(self, hidden: Tensor) -> Tensor:
        # one image, as each patient brings under vmap: there a product is faster than torch's grouped 1x1 convolution
        if len(hidden) == 1 and self.across.bias is not None:
            return _mixed(hidden, self.across.weight[:, :, 0, 0]) + self.across.bias[:, None, None]
        wide: Tensor = self.across(hidden)
        return wide

    def _coupling(self, kept: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        planes = condition[:, :, None, None].expand(-1, -1, kept.shape[2], kept.shape[3])
        hidden = functional.silu(self.inward(torch.cat([kept, planes], dim=1)))
        raw, shift = self.outward(functional.silu(self._across(hidden))).chunk(2, dim=1)
        return LARGEST_LOG_SCALE * torch.tanh(raw / LARGEST_LOG_SCALE), shift


class Glow(nn.Module):
    """`levels` of squeeze, each with `steps` flow steps: whitened images [N, C, S, S] <-> latents of the same shape."""

    # the whole loss, because parameters enter the log-determinant outside any layer
    private_engine: ClassVar[str] = "vmap"

    def __init__(self, channels: int, classes: int, levels: int, steps: int, hidden: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(FlowStep(channels * 4**level, classes, hidden, bool(step % 2)) for step in range(steps))
            for level in range(1, levels + 1)
        )

    def forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened images [N, C, S, S] and labels [N, K] -> latents of the same shape and log|det| [N]."""
        total = u.new_zeros(u.shape[0])
        for level in self.levels:
            u = functional.pixel_unshuffle(u, 2)
            for step in _steps(level):
                u, log_det = step(u, condition)
                total = total + log_det
        for _ in self.levels:
            u = functional.pixel_shuffle(u, 2)
        return u, total

    def inverse(self, v: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `forward`: latents [N, C, S, S] -> whitened images."""
        for _ in self.levels:
            v = functional.pixel_unshuffle(v, 2)
        for level in reversed(self.levels):
            for step in reversed(_steps(level)):
                v = step.inverse(v, condition)
            v = functional.pixel_shuffle(v, 2)
        return v


def _mixed(x: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution of [N, C, H, W] with [C, C]: a matrix product, as are its per-record gradients then."""
    mixed: Tensor = (weight @ x.flatten(2)).view(x.shape)
    return mixed


def _steps(level: nn.Module) -> list[FlowStep]:
    return [step for step in level.children() if isinstance(step, FlowStep)]


def flow_loss(forward: nn.Module, u: Tensor, condition: Tensor) -> Tensor:
    """Negative log-likelihood of whitened images in nats a dimension, one value a record [N]."""
    v, log_det = forward(u, condition)
    nats: Tensor = -(standard_normal_log_prob(v) + log_det)
    return nats / u[0].numel()

"""Small conditional GLOW (Kingma and Dhariwal 2018) on whitened images, exactly the identity at the start.

Activation normalisation starts at one and zero instead of at a batch's statistics: a data-dependent start would be an
unaccounted release. 1x1 convolutions are L U with a positive diagonal; couplings and priors end in a layer of zeros.
Every level but the last gives away half of its channels, standardised by a prior that the other half conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.flow.couplings import COUPLINGS, Coupling
from sfumato_common.generators.flow.flows import Flow, condition_planes


class ActNorm(NamedTuple):
    """Activation normalisation (section 3.1): a scale and a shift for every channel, [C] each."""

    log_scale: Tensor
    shift: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] -> the same shape, and log|det|, the same for every record."""
        y = x * self.log_scale.exp()[:, None, None] + self.shift[:, None, None]
        return y, self.log_scale.sum() * (x.shape[2] * x.shape[3])

    def inverse(self, y: Tensor) -> Tensor:
        """Inverse of `forward`."""
        return (y - self.shift[:, None, None]) * (-self.log_scale).exp()[:, None, None]


class InvConv1x1(NamedTuple):
    """Invertible 1x1 convolution (section 3.2) by a matrix L U [C, C], L with ones and U with exp(log_diagonal)."""

    lower: Tensor
    upper: Tensor
    log_diagonal: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] -> the same shape, and log|det|, the same for every record."""
        lower, upper = self._factors()
        return _mix(x, lower @ upper), self.log_diagonal.sum() * (x.shape[2] * x.shape[3])

    def inverse(self, y: Tensor) -> Tensor:
        """Inverse of `forward`, by two triangular systems."""
        lower, upper = self._factors()
        flat = torch.linalg.solve_triangular(lower, y.flatten(2), upper=False, unitriangular=True)
        x: Tensor = torch.linalg.solve_triangular(upper, flat, upper=True)
        return x.view(y.shape)

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = torch.tril(self.lower, -1) + torch.eye(len(self.lower)).to(self.lower)
        return lower, torch.triu(self.upper, 1) + torch.diag(self.log_diagonal.exp())


class AffineCoupling(NamedTuple):
    """Affine coupling (section 3.3): `network` reads one half of the channels and says how the other changes.

    `rule` takes what it says to scale and shift; `swapped` picks the half that changes.
    """

    rule: Coupling
    network: Callable[[Tensor, Tensor], Tensor]
    swapped: bool

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] -> the same shape and log|det| [N]."""
        kept, changed = self.split(x)
        changed, log_det = self.rule.forward(changed, self.network(kept, condition))
        return self.merge(kept, changed), log_det

    def inverse(self, y: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `forward`."""
        kept, changed = self.split(y)
        return self.merge(kept, self.rule.inverse(changed, self.network(kept, condition)))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The half that is read and the half that changes."""
        first, second = x.chunk(2, dim=1)
        return (second, first) if self.swapped else (first, second)

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        """Inverse of `split`."""
        return torch.cat([changed, kept] if self.swapped else [kept, changed], dim=1)


class FlowStep(nn.Module):
    """One step of flow (figure 2a): actnorm, invertible 1x1 convolution, affine coupling on [N, C, H, W].

    Its parameters are its own, and the parts take them: weights are named as they have always travelled.
    """

    def __init__(self, channels: int, classes: int, hidden: int, swapped: bool, coupling: str = "affine") -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.lower = nn.Parameter(torch.zeros(channels, channels))
        self.upper = nn.Parameter(torch.zeros(channels, channels))
        self.log_diagonal = nn.Parameter(torch.zeros(channels))
        half, rule = channels // 2, COUPLINGS[coupling]
        self.inward = nn.Conv2d(half + classes, hidden, 3, padding=1)
        self.across = nn.Conv2d(hidden, hidden, 1)
        self.outward = zero_convolution(hidden, rule.outputs * half)
        self.coupling = AffineCoupling(rule, self._network, swapped)

    @property
    def actnorm(self) -> ActNorm:
        """The first part."""
        return ActNorm(self.log_scale, self.shift)

    @property
    def inv_conv(self) -> InvConv1x1:
        """The second part."""
        return InvConv1x1(self.lower, self.upper, self.log_diagonal)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] -> the same shape and log|det| [N]."""
        x, first = self.actnorm.forward(x)
        x, second = self.inv_conv.forward(x)
        x, third = self.coupling.forward(x, condition)
        return x, first + second + third

    def inverse(self, x: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `forward`."""
        return self.actnorm.inverse(self.inv_conv.inverse(self.coupling.inverse(x, condition)))

    def _network(self, kept: Tensor, condition: Tensor) -> Tensor:
        hidden = functional.silu(self.inward(condition_planes(condition, kept)))
        raw: Tensor = self.outward(functional.silu(self._across(hidden)))
        return raw

    def _across(self, hidden: Tensor) -> Tensor:
        # one image, as each patient brings under vmap: there a product is faster than torch's grouped 1x1 convolution
        if len(hidden) == 1 and self.across.bias is not None:
            return _mix(hidden, self.across.weight[:, :, 0, 0]) + self.across.bias[:, None, None]
        wide: Tensor = self.across(hidden)
        return wide


class Split(nn.Module):
    """Half of the channels leaves as latents: [N, C, H, W] -> kept and latents, [N, C / 2, H, W] each, log|det| [N].

    The prior of the leaving half is a Gaussian whose mean and scale are read off the kept half; dividing by it makes
    the latents standard normal, and starts as doing nothing.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.prior = zero_convolution(channels // 2 + classes, channels)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        kept, leaving = x.chunk(2, dim=1)
        latents, log_det = COUPLINGS["affine"].forward(leaving, self.prior(condition_planes(condition, kept)))
        return kept, latents, log_det

    def inverse(self, kept: Tensor, latents: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `forward`."""
        leaving = COUPLINGS["affine"].inverse(latents, self.prior(condition_planes(condition, kept)))
        return torch.cat([kept, leaving], dim=1)


class Glow(Flow):
    """`levels` of squeeze, `steps` flow steps and a split each: whitened images [N, C, S, S] <-> latents, that shape.

    Flat latents begin with those of the last, coarsest level.
    """

    def __init__(
        self, channels: int, classes: int, levels: int, steps: int, hidden: int, coupling: str = "affine"
    ) -> None:
        super().__init__(channels)
        widths = [channels * 4 * 2**level for level in range(levels)]
        self.levels = nn.ModuleList(
            nn.ModuleList(FlowStep(width, classes, hidden, bool(step % 2), coupling) for step in range(steps))
            for width in widths
        )
        self.splits = nn.ModuleList(Split(width, classes) for width in widths[:-1])

    def _forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        total = u.new_zeros(u.shape[0])
        parts: list[Tensor] = []
        for level, split in zip_longest(self.levels, self.splits):
            u = functional.pixel_unshuffle(u, 2)
            for step in level.children():
                u, log_det = step(u, condition)
                total = total + log_det
            if split is not None:
                u, latents, log_det = split(u, condition)
                total = total + log_det
                parts.append(latents)
        return _merge([*parts, u]), total

    def _inverse(self, v: Tensor, condition: Tensor) -> Tensor:
        *parts, u = self._split(v)
        for index in reversed(range(len(self.levels))):
            if index < len(parts):
                u = self.splits[index].inverse(u, parts[index], condition)  # type: ignore[operator]
            for step in reversed(list(self.levels[index].children())):
                u = step.inverse(u, condition)  # type: ignore[operator]
            u = functional.pixel_shuffle(u, 2)
        return u

    def _flat(self, v: Tensor) -> Tensor:
        return torch.cat([part.flatten(1) for part in reversed(self._split(v))], dim=1)

    def _unflat(self, z: Tensor) -> Tensor:
        size = self.size_of(z)
        form = z.new_empty((1, self.channels, size, size)).expand(len(z), -1, -1, -1)
        shapes = [part.shape for part in reversed(self._split(form))]
        flat = torch.split(z, [shape[1:].numel() for shape in shapes], dim=1)
        return _merge([part.reshape(shape) for part, shape in zip(flat, shapes, strict=True)][::-1])

    def _split(self, v: Tensor) -> list[Tensor]:
        """Latents by level, finest first, out of the image that `_merge` made of them."""
        parts: list[Tensor] = []
        for _ in self.splits:
            v, latents = functional.pixel_unshuffle(v, 2).chunk(2, dim=1)
            parts.append(latents)
        return [*parts, functional.pixel_unshuffle(v, 2)]


def _merge(parts: list[Tensor]) -> Tensor:
    """Latents by level, finest first, as one image: each where its pixels were at the start."""
    *finer, v = parts
    v = functional.pixel_shuffle(v, 2)
    for latents in reversed(finer):
        v = functional.pixel_shuffle(torch.cat([v, latents], dim=1), 2)
    return v


def zero_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that says zero until it is trained."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _mix(x: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution of [N, C, H, W] with [C, C]: a matrix product, as are its per-record gradients then."""
    mixed: Tensor = (weight @ x.flatten(2)).view(x.shape)
    return mixed

"""A diffusion transformer (DiT: Peebles and Xie 2023, section 3) on squares of an image, and its low-rank adapter.

Plain layers, written out: nothing couples records, nothing has a buffer, and every operation runs under vmap. Blocks
are modulated by time and class as in adaLN, without its gates: a gate of zero would leave a frozen network of public
random weights no gradient to pass on. The last layer says zero until it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_FREQUENCIES = 16  # of the angle that says how noisy an image is
_MLP = 4  # times the width


class LowRank(nn.Module):
    """A change of a linear layer of low rank, none at the start (LoRA: Hu et al. 2022, section 4.1)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs], to be added to what the layer says."""
        changed: Tensor = self.up(self.down(x))
        return changed


class AttentionChange(nn.Module):
    """Changes of one block's attention: of queries, keys and values, and of what joins the heads."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.inward, self.outward = LowRank(width, 3 * width, rank), LowRank(width, width, rank)


class Adapter(nn.Module):
    """All that patients' gradients may change: attention by low rank, what a class means, and the last layer."""

    def __init__(self, channels: int, classes: int, patch: int, width: int, depth: int, rank: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AttentionChange(width, rank) for _ in range(depth))
        self.condition = _zero(nn.Linear(classes, width, bias=False))
        self.outward = _zero(nn.Linear(width, channels * patch**2))


class Block(nn.Module):
    """Attention among an image's squares, then a layer of each; both modulated, both added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.modulation = _zero(nn.Linear(width, 4 * width))
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, _MLP * width), nn.Linear(_MLP * width, width)

    def forward(self, h: Tensor, given: Tensor, change: AttentionChange | None) -> Tensor:
        """Squares [N, T, W] and condition [N, W] -> [N, T, W]."""
        shift, scale, shift_mlp, scale_mlp = self.modulation(given)[:, None].chunk(4, dim=2)
        x = _normal(h) * (1.0 + scale) + shift
        joined = self._attend(self.inward(x) if change is None else self.inward(x) + change.inward(x))
        h = h + (self.outward(joined) if change is None else self.outward(joined) + change.outward(joined))
        x = _normal(h) * (1.0 + scale_mlp) + shift_mlp
        wider: Tensor = self.narrow(functional.silu(self.wide(x)))
        return h + wider

    def _attend(self, inward: Tensor) -> Tensor:
        form = (*inward.shape[:2], self._heads, -1)
        queries, keys, values = (part.reshape(form).transpose(1, 2) for part in inward.chunk(3, dim=2))
        likeness = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3])
        joined: Tensor = (likeness.softmax(dim=3) @ values).transpose(1, 2).flatten(2)
        return joined


class Denoiser(nn.Module):
    """Noisy images [N, C, S, S], angles [N] and conditions [N, K] -> velocities [N, C, S, S] (see `denoising`)."""

    def __init__(self, channels: int, size: int, classes: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self._patch = patch
        self.inward = nn.Linear(channels * patch**2, width)
        self.places = nn.Linear((size // patch) ** 2, width, bias=False)  # a column a square
        self.time, self.condition = nn.Linear(2 * _FREQUENCIES, width), nn.Linear(classes, width, bias=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.outward = _zero(nn.Linear(width, channels * patch**2))

    def forward(self, x: Tensor, angle: Tensor, condition: Tensor, adapter: Adapter | None = None) -> Tensor:
        """See the class; with an `adapter`, its changes are added."""
        given = self.time(_waves(angle)) + self.condition(condition)
        if adapter is not None:
            given = given + adapter.condition(condition)
        given = functional.silu(given)
        squares = functional.pixel_unshuffle(x, self._patch).flatten(2).transpose(1, 2)
        h = self.inward(squares) + self.places.weight.T
        for number, block in enumerate(self.blocks):
            h = block(h, given, None if adapter is None else adapter.blocks[number])
        h = _normal(h)
        out = self.outward(h) if adapter is None else self.outward(h) + adapter.outward(h)
        rows = x.shape[2] // self._patch
        velocity: Tensor = functional.pixel_shuffle(out.transpose(1, 2).unflatten(2, (rows, -1)), self._patch)
        return velocity


class AdaptedDenoiser(nn.Module):
    """A frozen denoiser with an adapter; the adapter's weights are all its parameters, and all that an engine sees."""

    private_engine = "vmap"

    def __init__(self, denoiser: Denoiser, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter
        # in a tuple it is no submodule: nothing of it is trained, noised or sent back
        self._frozen = (denoiser.requires_grad_(False),)

    def forward(self, x: Tensor, angle: Tensor, condition: Tensor) -> Tensor:
        """As the denoiser's."""
        velocity: Tensor = self._frozen[0](x, angle, condition, self.adapter)
        return velocity

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._frozen[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


def _normal(h: Tensor) -> Tensor:
    return functional.layer_norm(h, h.shape[-1:])


def _waves(angle: Tensor) -> Tensor:
    """[N] -> [N, 2 F]: sines and cosines of the angle, up to a wave of a hundredth of the quarter turn."""
    steps = torch.arange(_FREQUENCIES, device=angle.device, dtype=angle.dtype)
    turned = angle[:, None] * torch.exp(steps * (math.log(100.0) / (_FREQUENCIES - 1)))
    return torch.cat([turned.sin(), turned.cos()], dim=1)


def _zero(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

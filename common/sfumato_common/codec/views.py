"""Other views of public images, drawn anew for every batch: turned, moved, of another scale and exposure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_GROUP = 8  # images that are turned, moved and scaled alike: one call for all of them
_MOVED = 8  # pixels
_SCALES = (0.8, 1.25)
_SCALED = 0.5  # share of groups
_CONTRAST, _BRIGHTNESS = (0.6, 1.2), 0.2


def views(images: Tensor, rows: Tensor, rng: torch.Generator) -> Tensor:
    """Float views [N, C, S, S] in [-1, 1] of uint8 `images` [M, C, S, S] at `rows` [N]; `rng` is on the CPU."""
    batch = images[rows.to(images.device)].float() / 127.5 - 1.0
    turned = torch.cat([_view(group, rng) for group in torch.split(batch, _GROUP)])
    draws = torch.rand(2, len(turned), 1, 1, 1, generator=rng).to(turned)
    contrast = _CONTRAST[0] + (_CONTRAST[1] - _CONTRAST[0]) * draws[0]
    return (turned * contrast + _BRIGHTNESS * (2.0 * draws[1] - 1.0)).clamp(-1.0, 1.0)


def _view(x: Tensor, rng: torch.Generator) -> Tensor:
    turn, mirror, scaled, scale, down, across = torch.rand(6, generator=rng).tolist()
    size = x.shape[-1]
    if turn < 0.5:  # half of all stay upright: anatomy is part of what is learned
        x = torch.rot90(x, int(turn * 8), (2, 3))
    if mirror < 0.5:
        x = x.flip(3)
    reach = min(_MOVED, size // 8)
    x = functional.pad(x, [reach] * 4, mode="reflect")
    top, left = int(down * (2 * reach + 1)), int(across * (2 * reach + 1))
    x = x[:, :, top : top + size, left : left + size]
    if scaled < _SCALED:
        x = _scaled(x, _SCALES[0] + (_SCALES[1] - _SCALES[0]) * scale)
    return x


def _scaled(x: Tensor, scale: float) -> Tensor:
    """The middle made larger, or the whole made smaller with its edge mirrored; [N, C, S, S] as before."""
    size = x.shape[-1]
    wanted = 2 * round(size / scale / 2)
    margin = (wanted - size) // 2
    x = functional.pad(x, [margin] * 4, mode="reflect") if margin > 0 else _middle(x, -margin)
    return functional.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)


def _middle(x: Tensor, margin: int) -> Tensor:
    return x[:, :, margin : x.shape[-1] - margin, margin : x.shape[-1] - margin]

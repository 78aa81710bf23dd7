"""Vision Transformer (Dosovitskiy et al. 2021) as timm, DINOv2, RAD-DINO and RETFound name and publish it.

Layer scale (Touvron et al. 2021), register tokens (Darcet et al. 2024) and the place of the last norm are read off the
file's names. Positions are resampled to the image's grid as timm does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

# width and heads; the depth too, so that a file with blocks left out is refused
SIZES = {"vit-tiny": (192, 3, 12), "vit-small": (384, 6, 12), "vit-base": (768, 12, 12), "vit-large": (1024, 16, 24)}
_EPSILON = 1e-6


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        parts = self.qkv(x).view(count, tokens, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        projected: Tensor = self.proj(found.transpose(1, 2).reshape(count, tokens, width))
        return projected


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return found


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, _EPSILON), _Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, _EPSILON), _Mlp(width)
        self.ls1: nn.Module = _Scale(width) if scaled else nn.Identity()
        self.ls2: nn.Module = _Scale(width) if scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        found: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return found


class VisionTransformer(nn.Module):
    """Prepared images [N, 3, S, S] -> the class token [N, D] after the last norm; the mean of patches under `fc_norm`.

    What is not fixed by its size is read off `weights`: patch side, number of positions, registers, scales, norm.
    """

    def __init__(self, name: str, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        width, heads, depth = SIZES[name]
        self._patch = weights["patch_embed.proj.weight"].shape[-1]
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, self._patch, self._patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = weights["pos_embed"].shape[1]
        if math.isqrt(positions) ** 2 not in (positions, positions - 1):
            raise ValueError("positions that fill no square")
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, width))
        self._registers = next((key for key in ("register_tokens", "reg_token") if key in weights), None)
        if self._registers is not None:
            registers = torch.zeros(1, weights[self._registers].shape[1], width)
            self.register_parameter(self._registers, nn.Parameter(registers))
        scaled = "blocks.0.ls1.gamma" in weights
        self.blocks = nn.ModuleList(_Block(width, heads, scaled) for _ in range(depth))
        self._last = "fc_norm" if "fc_norm.weight" in weights else "norm"
        self.add_module(self._last, nn.LayerNorm(width, _EPSILON))

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [N, D]."""
        grid = (x.shape[2] // self._patch, x.shape[3] // self._patch)
        patches = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        place, of_class = self._positions(grid)
        first = (self.cls_token + of_class).expand(len(x), -1, -1)
        parts = [first, patches + place]
        if self._registers is not None:
            parts.insert(1, getattr(self, self._registers).expand(len(x), -1, -1))
        tokens = torch.cat(parts, dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        norm = getattr(self, self._last)
        found: Tensor = (
            norm(tokens[:, -patches.shape[1] :].mean(dim=1)) if self._last == "fc_norm" else norm(tokens)[:, 0]
        )
        return found

    def _positions(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Positions of the patches [1, P, D] on `grid`, and of the class token [1, 1, D], 0 where it has none."""
        count = self.pos_embed.shape[1]
        own = math.isqrt(count) ** 2 != count  # the class token has a place too
        place, of_class = self.pos_embed[:, int(own) :], self.pos_embed[:, :1] * float(own)
        side = math.isqrt(place.shape[1])
        if grid == (side, side):
            return place, of_class
        square = place.view(1, side, side, -1).permute(0, 3, 1, 2)
        resized = functional.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
        return resized.flatten(2).transpose(1, 2), of_class

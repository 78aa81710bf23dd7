"""AutoencoderKL (Rombach et al. 2022) in the layout that diffusers publishes: `config.json` and one safetensors file.

Written out here so that a user's public checkpoint loads without that library; the names of weights are its own. A code
is the posterior's mean, shifted and scaled as the configuration says. Grey images are shown as three equal channels,
and the mean of the three is taken back.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.strict import Strict, parse

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_EPSILON = 1e-6
# names of the attention's weights before diffusers 0.18
_FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
Width = Annotated[int, Field(ge=1, le=4096)]


class AutoencoderKLConfig(Strict):
    """What of a published `config.json` shapes the network; keys beside these say nothing of it."""

    model_config = ConfigDict(extra="ignore", strict=False)

    kind: Literal["AutoencoderKL"] = Field(alias="_class_name")
    in_channels: Literal[1, 3] = 3
    out_channels: Literal[1, 3] = 3
    down_block_types: list[Literal["DownEncoderBlock2D"]]
    up_block_types: list[Literal["UpDecoderBlock2D"]]
    block_out_channels: Annotated[list[Width], Field(min_length=1, max_length=8)]
    layers_per_block: Annotated[int, Field(ge=1, le=8)] = 1
    act_fn: Literal["silu"] = "silu"
    latent_channels: Annotated[int, Field(ge=1, le=64)] = 4
    norm_num_groups: Width = 32
    scaling_factor: Annotated[float, Field(gt=0)] = 0.18215
    shift_factor: float | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @model_validator(mode="after")
    def _fits(self) -> AutoencoderKLConfig:
        levels = len(self.block_out_channels)
        if not levels == len(self.down_block_types) == len(self.up_block_types):
            raise ValueError("'block_out_channels' and the block types must be as many")
        if any(width % self.norm_num_groups for width in self.block_out_channels):
            raise ValueError("'norm_num_groups' must divide every one of 'block_out_channels'")
        return self

    @property
    def shrinks(self) -> int:
        """Pixels a side that one place of the latents stands for."""
        return int(2 ** (len(self.block_out_channels) - 1))


class AutoencoderKL(nn.Module):
    """Images [N, C, S, S] in [-1, 1] to codes [N, D] and back; D = latent channels x (S / shrinks)^2."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.latent_channels
        self.encoder, self.decoder = _Encoder(config), _Decoder(config)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if config.use_quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if config.use_post_quant_conv else nn.Identity()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def numbers(self, size: int) -> int:
        """D, the numbers of a code of an image of that size."""
        return int(self.config.latent_channels * (size // self.config.shrinks) ** 2)

    def encode(self, images: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S]; S is a multiple of `shrinks`."""
        mean = self.quant_conv(self.encoder(_channels(images, self.config.in_channels))).chunk(2, dim=1)[0]
        codes: Tensor = ((mean - (self.config.shift_factor or 0.0)) * self.config.scaling_factor).flatten(1)
        return codes

    def decode(self, codes: Tensor, channels: int = 3) -> Tensor:
        """Images [N, channels, S, S] of codes [N, D]; differentiable. Not clipped to [-1, 1]."""
        side = round((codes.shape[1] / self.config.latent_channels) ** 0.5)
        latents = codes.reshape(len(codes), self.config.latent_channels, side, side) / self.config.scaling_factor
        made = self.decoder(self.post_quant_conv(latents + (self.config.shift_factor or 0.0)))
        return _channels(made, channels)


def read_autoencoder_kl(folder: Path, sha256: str | None = None) -> AutoencoderKL:
    """The network of a published folder, on the CPU and frozen; `sha256` is of the safetensors file.

    Raises ConfigError for a folder or form that is none, VerificationError for weights of another form or hash.
    """
    try:
        stated = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        data = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError):
        raise ConfigError(f"'{folder.name}' is no published autoencoder: it holds '{CONFIG}' and '{WEIGHTS}'") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise VerificationError("the autoencoder's file is not the one that is pinned by its sha256")
    network = AutoencoderKL(parse(stated, AutoencoderKLConfig, CONFIG))
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError):
        raise VerificationError(f"'{WEIGHTS}' is no safetensors file; bring it anew") from None
    own = network.state_dict()
    weights = {_present_name(name): value for name, value in found.items()}
    if set(weights) != set(own):
        raise VerificationError(f"the weights' names are not those of the form that '{CONFIG}' states")
    for name, value in own.items():
        # older files keep the attention's matrices as convolutions of one pixel
        given = weights[name].reshape(value.shape) if weights[name].numel() == value.numel() else weights[name]
        if given.shape != value.shape or not given.is_floating_point() or not bool(torch.isfinite(given).all()):
            raise VerificationError(f"the weight '{name}' is not of the form that '{CONFIG}' states")
        weights[name] = given.float()
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def _present_name(name: str) -> str:
    parts = name.split(".")
    return ".".join(_FORMER.get(part, part) if "attentions" in parts else part for part in parts)


def _channels(images: Tensor, wanted: int) -> Tensor:
    """Images of 1 or 3 channels as images of `wanted`: repeated, or their mean."""
    if images.shape[1] == wanted:
        return images
    made: Tensor = images.expand(-1, 3, -1, -1) if wanted == 3 else images.mean(dim=1, keepdim=True)
    return made


class _Resnet(nn.Module):
    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, before, _EPSILON), nn.Conv2d(before, after, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, after, _EPSILON), nn.Conv2d(after, after, 3, padding=1)
        if before != after:
            self.conv_shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        found: Tensor = hidden + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)
        return found


class _Attention(nn.Module):
    """One head over all places."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, _EPSILON)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        rows = self.group_norm(x).flatten(2).transpose(1, 2)
        seen = functional.scaled_dot_product_attention(self.to_q(rows), self.to_k(rows), self.to_v(rows))
        found: Tensor = x + self.to_out[0](seen).transpose(1, 2).reshape(x.shape)
        return found


class _Middle(nn.Module):
    def __init__(self, width: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([_Resnet(width, width, groups) for _ in range(2)])
        self.attentions = nn.ModuleList([_Attention(width, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        found: Tensor = self.resnets[1](x)
        return found


class _Convolution(nn.Module):
    """Holds `conv` under the name that it is published by; halves or doubles the image."""

    def __init__(self, width: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(width, width, 3, stride=2) if down else nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 1, 0, 1)) if self.down else functional.interpolate(x, scale_factor=2.0)
        found: Tensor = self.conv(x)
        return found


class _Level(nn.Module):
    """Residual blocks of one size, then, unless it is the last, a change of size."""

    def __init__(self, before: int, after: int, blocks: int, groups: int, down: bool, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([_Resnet(before if not n else after, after, groups) for n in range(blocks)])
        if not last:
            setattr(self, "downsamplers" if down else "upsamplers", nn.ModuleList([_Convolution(after, down)]))

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        for name in ("downsamplers", "upsamplers"):
            for change in getattr(self, name, ()):
                x = change(x)
        return x


class _Encoder(nn.Module):
    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        before = [widths[0], *widths[:-1]]
        self.down_blocks = nn.ModuleList(
            _Level(own, width, config.layers_per_block, groups, True, n == len(widths) - 1)
            for n, (own, width) in enumerate(zip(before, widths, strict=True))
        )
        self.mid_block = _Middle(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], _EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        found: Tensor = self.conv_out(functional.silu(self.conv_norm_out(self.mid_block(x))))
        return found


class _Decoder(nn.Module):
    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _Middle(widths[0], groups, config.mid_block_add_attention)
        before = [widths[0], *widths[:-1]]
        self.up_blocks = nn.ModuleList(
            _Level(own, width, config.layers_per_block + 1, groups, False, n == len(widths) - 1)
            for n, (own, width) in enumerate(zip(before, widths, strict=True))
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], _EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        found: Tensor = self.conv_out(functional.silu(self.conv_norm_out(x)))
        return found

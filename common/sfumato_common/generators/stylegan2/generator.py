"""The StyleGAN2 generator (Karras et al. 2020): a mapping to W and a synthesis that adds up images of every resolution.

Parameters are named as in NVIDIA's `stylegan2-ada-pytorch` and `stylegan3` repositories (`G_ema`), architecture 'skip';
there are no buffers: noise is given, filters are constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfumato_common.generators.stylegan2.layers import Dense, StyledConv, ToImage, activate, normalise, upsample

CODE = 512  # numbers of a latent and of a code
_MAPPING_RATE = 0.01
_COARSEST = 4


def resolutions(size: int) -> list[int]:
    """Sides of the blocks, 4 to `size`."""
    return [2**level for level in range(2, size.bit_length())]


def code_layers(size: int) -> int:
    """L, the codes of an image in W+: a convolution at 4 pixels, two from there up, and the last image's."""
    return 2 * len(resolutions(size))


def noise_sides(size: int) -> list[int]:
    """Side of the noise of every convolution, from coarse to fine."""
    return [side for side in resolutions(size) for _ in range(1 if side == _COARSEST else 2)]


class Mapping(nn.Module):
    """Latents [N, 512] and conditions [N, K] -> codes [N, 512]; the condition is embedded and normalised beside z."""

    def __init__(self, classes: int, layers: int) -> None:
        super().__init__()
        self.embed = Dense(classes, CODE)
        self._layers = layers
        for index in range(layers):
            setattr(self, f"fc{index}", Dense(CODE if index else 2 * CODE, CODE, rate=_MAPPING_RATE))

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """w."""
        x = torch.cat([normalise(z), normalise(self.embed(condition))], dim=1)
        for index in range(self._layers):
            x = activate(getattr(self, f"fc{index}")(x))
        return x


class Block(nn.Module):
    """One resolution: two styled convolutions (one at 4 pixels, behind a constant) and its share of the image."""

    def __init__(self, inputs: int, outputs: int, channels: int, side: int) -> None:
        super().__init__()
        if side == _COARSEST:
            self.const = nn.Parameter(torch.randn(outputs, side, side))
        else:
            self.conv0 = StyledConv(inputs, outputs, CODE, up=True)
        self.conv1 = StyledConv(outputs, outputs, CODE, up=False)
        self.torgb = ToImage(outputs, channels, CODE)

    def forward(
        self, x: Tensor | None, image: Tensor | None, codes: Tensor, noise: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Maps and image of half the side, codes [N, 2 or 3, W], a noise a convolution -> maps and image."""
        if x is None:
            x = self.const.expand(len(codes), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv0(x, codes[:, 0], noise[0])
        x = self.conv1(x, codes[:, -2], noise[-1])
        whole: Tensor = self.torgb(x, codes[:, -1])
        return x, whole if image is None else upsample(image) + whole


class Synthesis(nn.Module):
    """Codes [N, L, 512], from coarse to fine, and noise [N, 1, R, R] a convolution -> images [N, C, S, S]."""

    def __init__(self, size: int, channels: int, base: int, most: int) -> None:
        super().__init__()
        self._sides, before = resolutions(size), 0
        for side in self._sides:
            width = min(base // side, most)
            setattr(self, f"b{side}", Block(before, width, channels, side))
            before = width

    def forward(self, codes: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images, not clamped; without noise, smooth."""
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0
        maps = list(noise) if noise is not None else [None] * (2 * len(self._sides) - 1)
        for side in self._sides:
            count = 1 if side == _COARSEST else 2
            # the last code of a block is its image's, and the next block's first
            own = codes[:, first : first + count + 1]
            x, image = getattr(self, f"b{side}")(x, image, own, maps[first : first + count])
            first += count
        assert image is not None
        return image


class Generator(nn.Module):
    """Latents [N, 512], conditions [N, K] and noise -> images [N, C, S, S], not clamped."""

    def __init__(self, size: int, channels: int, classes: int, base: int, most: int, layers: int) -> None:
        super().__init__()
        self.size = size
        self.mapping = Mapping(classes, layers)
        self.synthesis = Synthesis(size, channels, base, most)

    def broadcast(self, w: Tensor) -> Tensor:
        """Codes [N, 512] -> [N, L, 512]; those that have layers already are left."""
        return w if w.ndim == 3 else w[:, None].expand(-1, code_layers(self.size), -1)

    def forward(self, z: Tensor, condition: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images of latents."""
        images: Tensor = self.synthesis(self.broadcast(self.mapping(z, condition)), noise)
        return images

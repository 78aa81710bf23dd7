"""Weights of the W-space generator: a mapping network, and a modulated synthesis that corrects spectral images.

After StyleGAN2 (Karras et al. 2020), with changes. What the codes mean linearly is the spectral model's to decode
(see `gan.WSpace`), so both networks only correct: their last layers start at zero and what they add is bounded. And
every resolution of the synthesis sees the spectral image, so that the correction follows its edges. Only the mapping is
told the condition: a synthesis that knows the label learns from noisy discriminators to stamp it on the image. Resize
convolutions only: transposed ones with kernels of their own show checkerboards (Odena et al. 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.gan.modulated import SLOPE, ModulatedConv, conv_to_image, pixel_norm

# The largest correction of a pixel, in units of [-1, 1], and of a code, in standard deviations of the latents: the
# generator may sharpen its start, not leave it.
LARGEST_CORRECTION = 0.3
LARGEST_SHIFT = 1.0
_MAPPING_WIDTH = 64
_COARSEST = 7  # no resolution below
_FINEST_WIDE = 256  # from here up a resolution has half the channels of the one below


class Generator(nn.Module):
    """Mapping: latents [N, D], conditions [N, K] -> codes [N, D]. Synthesis: spectral images [N, C, S, S] and codes
    [N, L, D], one a resolution from coarse to fine -> corrected images in [-1, 1]. At the start both are the identity.
    """

    def __init__(self, size: int, channels: int, latent: int, classes: int, width: int) -> None:
        super().__init__()
        self.resolutions = resolutions(size)
        self.hidden = nn.ModuleList(
            [nn.Linear(latent + classes, _MAPPING_WIDTH), nn.Linear(_MAPPING_WIDTH, _MAPPING_WIDTH)]
        )
        self.shift = nn.Linear(_MAPPING_WIDTH, latent)
        layers, before = [], 0
        for resolution in self.resolutions:
            out = _channels(resolution, size, width)
            layers.append(ModulatedConv(before + channels, out, latent))
            before = out
        self.layers = nn.ModuleList(layers)
        self.last = nn.Conv2d(before, channels, 3, padding=1)
        for part in (self.shift, self.last):
            nn.init.zeros_(part.weight)
            assert part.bias is not None
            nn.init.zeros_(part.bias)

    def mapping(self, z: Tensor, condition: Tensor) -> Tensor:
        """w = z plus a bounded shift."""
        x = torch.cat([pixel_norm(z), condition], dim=1)
        for layer in self.hidden:
            x = functional.leaky_relu(layer(x), SLOPE)
        return z + LARGEST_SHIFT * torch.tanh(self.shift(x))

    def forward(self, base: Tensor, codes: Tensor, *noise: Tensor) -> Tensor:
        """`base` plus a bounded fine correction, clamped to [-1, 1]; noise maps [N, 1, R, R], one a resolution."""
        images = [base]
        for _ in self.resolutions[1:]:
            images.insert(0, functional.avg_pool2d(images[0], 2))
        x: tuple[Tensor, Tensor] | None = None
        for level, layer in enumerate(self.layers):
            x = layer(x, images[level], pixel_norm(codes[:, level]), noise[level])
        assert x is not None
        correction = torch.tanh(conv_to_image(*x, self.last, base.shape[-1]))
        return (base + LARGEST_CORRECTION * _fine(correction)).clamp(-1.0, 1.0)


def resolutions(size: int) -> list[int]:
    """Halves of `size` from the coarsest, at least 7 pixels, up to `size` itself."""
    found = [size]
    while found[0] % 2 == 0 and found[0] // 2 >= _COARSEST:
        found.insert(0, found[0] // 2)
    return found


def _channels(resolution: int, size: int, width: int) -> int:
    """Full resolution has `width` channels, all others twice as many; above 256 pixels memory asks for fewer."""
    if resolution >= _FINEST_WIDE:
        return max(8, width * _FINEST_WIDE // (2 * resolution))
    return width if resolution == size else 2 * width


def _fine(x: Tensor) -> Tensor:
    """What is left of [N, C, S, S] without an 8 x 8 grid of means: the coarse part is the spectral release's."""
    coarse = functional.adaptive_avg_pool2d(x, 8)
    return x - functional.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)

"""Modulated, demodulated convolutions with noise maps (StyleGAN2: Karras et al. 2020, section 2.2 and appendix B).

Weights stay shared by the batch: the style scales a record's channels before the convolution and the demodulation
scales them after it, which is the same as scaling the kernel and couples no records.

On a processor most of a layer's time goes into passes over its maps, so that they are few: doubling the side and the
convolution are one transposed convolution; the image, noise and bias come in by one product a record; and what the
demodulation multiplies by goes into the next layer's scale, since a leaky ReLU leaves positive factors alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of every leaky ReLU
_EPSILON = 1e-8


class ModulatedConv(nn.Module):
    """3 x 3 convolution, whose kernel a style scales, of a map of half the side and of an image."""

    def __init__(self, inputs: int, outputs: int, style_width: int) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(inputs, outputs, 3, padding=1)  # its scale is of no matter: demodulation takes it out
        self.style = nn.Linear(style_width, inputs)
        self.strength = nn.Parameter(torch.zeros(()))  # of the noise: none at the start
        nn.init.ones_(self.style.bias)

    def forward(
        self, below: tuple[Tensor, Tensor] | None, image: Tensor, style: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The layer with its leaky ReLU, whose gain keeps the variance: pixels [N, S S, O] and their factors [N, O].

        `below` is what the layer of half the side gave, pixels [N, S S / 4, I] and factors [N, I], and comes before the
        `image` [N, C, S, S] in the kernel; styles are [N, W], noise [N, 1, S, S].
        """
        kernel, bias = self.kernel.weight, self.kernel.bias
        assert bias is not None
        scale = self.style(style)
        count, channels, side = image.shape[:3]
        split = kernel.shape[1] - channels
        length = torch.sqrt(scale.square() @ kernel.square().sum(dim=(2, 3)).T + _EPSILON)
        grain = noise.flatten(2).expand(count, -1, -1)
        seen = torch.cat([functional.unfold(image, 3, padding=1), grain, torch.ones_like(grain)], dim=1)
        own = (kernel[:, split:] * scale[:, None, split:, None, None]).flatten(2)
        whole = torch.cat([own, (self.strength * length)[:, :, None], (bias * length)[:, :, None]], dim=2)
        made: Tensor = _ToPixels.apply(whole, seen)  # type: ignore[no-untyped-call]
        if below is not None:
            pixels, factors = below
            scaled = (pixels * (scale[:, :split] * factors)[:, None]).unflatten(1, (side // 2, side // 2))
            doubled = functional.conv_transpose2d(
                scaled.permute(0, 3, 1, 2), doubling_kernel(kernel[:, :split]), stride=2, padding=1
            )
            made += doubled.permute(0, 2, 3, 1).flatten(1, 2)
        return functional.leaky_relu(made, SLOPE, inplace=True), math.sqrt(2.0) / length


def doubling_kernel(kernel: Tensor) -> Tensor:
    """[O, I, 3, 3] -> [I, O, 4, 4]: the transposed convolution, of stride 2 and padding 1, that is both steps of a
    resize convolution: repeats every pixel twice by twice, and convolves with `kernel`.
    """
    sums = 4.0 * functional.avg_pool2d(functional.pad(kernel, (1, 1, 1, 1)), 2, stride=1)
    # the order of axes in memory decides which of its ways a processor takes; this is the fastest
    return sums.flip(2, 3).contiguous(memory_format=torch.channels_last).transpose(0, 1)


def conv_to_image(pixels: Tensor, factors: Tensor, convolution: nn.Conv2d, side: int) -> Tensor:
    """A 3 x 3 convolution of pixels [N, S S, I] with factors [N, I] to few channels [N, C, S, S].

    As one product a record, whose parts are added in place: convolutions to one channel are slow on processors.
    """
    kernel, bias = convolution.weight, convolution.bias
    assert bias is not None
    flat = kernel.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)
    parts: Tensor = _FromPixels.apply(flat * factors[:, None], pixels)  # type: ignore[no-untyped-call]
    return functional.fold(parts, (side, side), 3, padding=1) + bias[:, None, None]


class _ToPixels(torch.autograd.Function):
    """Matrices [N, O, K] and maps [N, K, P] -> pixels [N, P, O].

    Autograd would find the same gradients by transposed products, which are several times slower with few channels.
    """

    @staticmethod
    def forward(context: Any, matrices: Tensor, maps: Tensor) -> Tensor:
        context.save_for_backward(matrices, maps)
        return maps.transpose(1, 2) @ matrices.transpose(1, 2)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        matrices, maps = context.saved_tensors
        return (maps @ gradient).transpose(1, 2), matrices.transpose(1, 2) @ gradient.transpose(1, 2)


class _FromPixels(torch.autograd.Function):
    """Matrices [N, K, I] and pixels [N, P, I] -> maps [N, K, P]: `_ToPixels` the other way."""

    @staticmethod
    def forward(context: Any, matrices: Tensor, pixels: Tensor) -> Tensor:
        context.save_for_backward(matrices, pixels)
        return matrices @ pixels.transpose(1, 2)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        matrices, pixels = context.saved_tensors
        return gradient @ pixels, gradient.transpose(1, 2) @ matrices


def pixel_norm(z: Tensor) -> Tensor:
    """Rows of [N, D] with mean square 1 (Karras et al. 2018, section 4.2)."""
    return z * torch.rsqrt(z.square().mean(dim=-1, keepdim=True) + _EPSILON)

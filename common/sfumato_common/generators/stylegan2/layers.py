"""Layers of StyleGAN2 (Karras et al. 2020, sections 2.2 and 4.2; Karras et al. 2018, section 4.1, for learning rates).

Names, shapes and gains of parameters are those of the published PyTorch generators, so that their weights mean the same
here. Kernels stay shared by the batch: a style scales a record's channels before the convolution and the demodulation
scales them after it, which is the same as scaling the kernel, and couples no records.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of every leaky ReLU
GAIN = math.sqrt(2.0)  # after it, which keeps the variance
LARGEST = 256.0  # activations are clamped here, as published generators were trained
_EPSILON = 1e-8


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU with its gain."""
    return functional.leaky_relu(x, SLOPE) * GAIN


def normalise(x: Tensor) -> Tensor:
    """Rows [N, D] of mean square 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + _EPSILON)


def upsample(image: Tensor) -> Tensor:
    """[N, C, S, S] -> [N, C, 2 S, 2 S] by the filter 1 3 3 1 with zeros outside: bilinear but for the edge."""
    padded = functional.pad(image, (1, 1, 1, 1))
    return functional.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)[:, :, 2:-2, 2:-2]


def smooth(x: Tensor) -> Tensor:
    """[N, C, S + 1, S + 1] -> [N, C, S, S] by the filter 1 3 3 1 of sum 1, zeros outside: one kernel a map."""
    line = _line(x.device)
    kernel = (line[:, None] * line).to(x.dtype).expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x, kernel, padding=1, groups=x.shape[1])


def _line(device: torch.device) -> Tensor:
    """1 3 3 1 of sum 1, made where it is used."""
    return 0.5 - 0.25 * (torch.arange(4, device=device) - 1.5).abs()


def smoothing(weight: Tensor) -> Tensor:
    """Kernels [O, I, 3, 3] -> [O, I, 6, 6], with which a transposed convolution of stride 2 is smoothed already.

    Four times the products and no passes over maps, which is what costs an accelerator time.
    """
    line = _line(weight.device)
    spread = torch.stack([functional.pad(line, (tap, 2 - tap)) for tap in range(3)])
    return spread.T @ weight @ spread


def halve(x: Tensor) -> Tensor:
    """[N, C, S, S] -> [N, C, S / 2, S / 2]: means of two by two."""
    if not x.is_cuda:
        return functional.avg_pool2d(x, 2)
    # an accelerator takes the mean, and its gradient, several times faster than it pools
    return halve_last(x)


def halve_last(x: Tensor) -> Tensor:
    """`halve`, with channels last in memory."""
    count, channels, side, _ = x.shape
    pairs = x.permute(0, 2, 3, 1).reshape(count, side // 2, 2, side // 2, 2, channels)
    return pairs.mean(dim=(2, 4)).permute(0, 3, 1, 2)


class Dense(nn.Module):
    """Fully connected layer whose weights, and their steps, are scaled when it runs; `rate` slows it down."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self._rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, O], float32 whatever convolutions are computed in."""
        scale = self._rate / math.sqrt(self.weight.shape[1])
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.float(), self.weight * scale, self.bias * self._rate)


class StyledConv(nn.Module):
    """3 x 3 convolution that a code modulates, with noise, bias and leaky ReLU; `up` doubles the side first."""

    def __init__(self, inputs: int, outputs: int, codes: int, *, up: bool) -> None:
        super().__init__()
        self.affine = Dense(codes, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._up = up

    def forward(self, x: Tensor, code: Tensor, noise: Tensor | None) -> Tensor:
        """Maps [N, I, S, S], codes [N, W], noise [N, 1, R, R] or none -> [N, O, R, R]; R is S, or 2 S with `up`."""
        style = self.affine(code)
        with torch.autocast(x.device.type, enabled=False):
            factor = torch.rsqrt(style.square() @ self.weight.square().sum(dim=(2, 3)).T + _EPSILON)
        x = x * style[:, :, None, None].to(x.dtype)
        if self._up:
            # a transposed convolution that writes between pixels, then the filter, whose gain is 4
            x = self._doubled(x)
            factor = 4.0 * factor
        else:
            x = functional.conv2d(x, self.weight, padding=1)
        x = torch.addcmul(
            (GAIN * self.bias)[None, :, None, None].to(x.dtype), x, (GAIN * factor)[:, :, None, None].to(x.dtype)
        )
        if noise is not None:
            x = x + (noise * (GAIN * self.noise_strength)).to(x.dtype)
        return functional.hardtanh(functional.leaky_relu(x, SLOPE), -LARGEST, LARGEST)  # a clamp of one pass back

    def _doubled(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            with torch.autocast("cuda", enabled=False):
                weight = smoothing(self.weight)
            return functional.conv_transpose2d(x, weight.transpose(0, 1).to(x.dtype), stride=2, padding=2)
        return smooth(functional.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2))


class ToImage(nn.Module):
    """1 x 1 convolution to an image, modulated and not demodulated."""

    def __init__(self, inputs: int, channels: int, codes: int) -> None:
        super().__init__()
        self.affine = Dense(codes, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Maps [N, I, S, S], codes [N, W] -> [N, C, S, S]."""
        style = self.affine(code) / math.sqrt(self.weight.shape[1])
        image = functional.conv2d(x * style[:, :, None, None].to(x.dtype), self.weight)
        return (image.float() + self.bias[None, :, None, None]).clamp(-LARGEST, LARGEST)

"""EfficientNet-Lite0 (Tan and Le 2019; "Higher accuracy on vision models with EfficientNet-Lite", 2020).

Inverted residuals without squeeze and excitation, ReLU6, TensorFlow's padding. Names are EfficientNet-PyTorch's.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.encoders.batch_norm import FixedBatchNorm

_EPSILON = 1e-3
# widening, kernel, stride of the first, channels after, how many
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_STEM, _HEAD = 32, 1280


class _Convolution(nn.Conv2d):
    """With TensorFlow's "same" padding: the odd pixel goes below and to the right."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[2:])
        padded = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return functional.conv2d(padded, self.weight, None, self.stride, 0, 1, self.groups)


class _Block(nn.Module):
    """Inverted residual (Sandler et al. 2018): widen, filter each channel, project, and add where it fits."""

    def __init__(self, before: int, widening: int, kernel: int, stride: int, after: int) -> None:
        super().__init__()
        wide = before * widening
        self._widens = widening > 1
        if self._widens:
            self._expand_conv = _Convolution(before, wide, 1, bias=False)
            self._bn0 = FixedBatchNorm(wide, _EPSILON)
        self._depthwise_conv = _Convolution(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = FixedBatchNorm(wide, _EPSILON)
        self._project_conv = _Convolution(wide, after, 1, bias=False)
        self._bn2 = FixedBatchNorm(after, _EPSILON)
        self._adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.relu6(self._bn0(self._expand_conv(x))) if self._widens else x
        filtered = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        projected: Tensor = self._bn2(self._project_conv(filtered))
        return x + projected if self._adds else projected


class EfficientNetLite0(nn.Module):
    """Prepared images [N, 3, S, S] -> mean features [N, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, _STEM, 3, 2, bias=False)
        self._bn0 = FixedBatchNorm(_STEM, _EPSILON)
        blocks: list[nn.Module] = []
        before = _STEM
        for widening, kernel, stride, after, count in _STAGES:
            for number in range(count):
                blocks.append(_Block(before, widening, kernel, 1 if number else stride, after))
                before = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Convolution(before, _HEAD, 1, bias=False)
        self._bn1 = FixedBatchNorm(_HEAD, _EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Features before the classifier."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

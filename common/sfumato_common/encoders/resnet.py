"""ResNet (He et al. 2016, table 1) in torchvision's layout, the stride of a bottleneck in its 3 x 3 convolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.encoders.batch_norm import FixedBatchNorm

_EPSILON = 1e-5
# blocks of the four stages, and whether they are bottlenecks
DEPTHS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}
_WIDTHS = (64, 128, 256, 512)


class _Block(nn.Module):
    """Residual block: two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 to four times the width (figure 5)."""

    def __init__(self, before: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        after = width * 4 if bottleneck else width
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = (before, width, width, after) if bottleneck else (before, width, width)
        self._count = len(kernels)
        for number, kernel in enumerate(kernels, 1):
            strides = stride if number == (2 if bottleneck else 1) else 1
            convolution = nn.Conv2d(widths[number - 1], widths[number], kernel, strides, kernel // 2, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", FixedBatchNorm(widths[number], _EPSILON))
        self.downsample: nn.Module | None = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), FixedBatchNorm(after, _EPSILON)
            )

    def forward(self, x: Tensor) -> Tensor:
        value = x
        for number in range(1, self._count + 1):
            value = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(value))
            value = functional.relu(value) if number < self._count else value
        return functional.relu(value + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Prepared images [N, 3, S, S] -> mean features [N, 512], of bottlenecks [N, 2048]."""

    def __init__(self, name: str) -> None:
        super().__init__()
        depths, bottleneck = DEPTHS[name]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = FixedBatchNorm(64, _EPSILON)
        before = 64
        for stage, (width, depth) in enumerate(zip(_WIDTHS, depths, strict=True), 1):
            blocks = []
            for number in range(depth):
                blocks.append(_Block(before, width, 1 if number or stage == 1 else 2, bottleneck))
                before = width * 4 if bottleneck else width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Features before the classifier."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, len(_WIDTHS) + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean(dim=(2, 3))

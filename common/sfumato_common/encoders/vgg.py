"""The first two convolutions of VGG19 (Simonyan and Zisserman 2015), torchvision's layout: k-SALSA's style features."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Vgg19Conv1(nn.Module):
    """Prepared images [N, 3, S, S] -> conv1_2 before its ReLU (Jeon et al. 2022, section 3.3), [N, 64, S, S]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict({"0": nn.Conv2d(3, 64, 3, padding=1), "2": nn.Conv2d(64, 64, 3, padding=1)})

    def forward(self, x: Tensor) -> Tensor:
        """Features at full resolution."""
        found: Tensor = self.features["2"](functional.relu(self.features["0"](x)))
        return found

"""The encoder of StyleGAN2's codes, and what it and Adam compare images by; nothing here couples records.

Perception is by a random network from a public seed: one that was trained on photographs is a download, and the
discriminator, which k-SALSA's authors could have used, is never released (`schemas.released`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.components import condition, condition_width
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.stylegan2.layers import SLOPE

_WIDTHS = (32, 64, 128)
_HIDDEN = 512
_GAIN = 4.0  # on what the reconstruction leaves of an image, which is a fraction of the image
_COARSEST = 4
# Adam moves all weights of a number at once, by its rate each: without this the first steps leave what is drawn. On a
# phantom's generator at 16 px films are off by 0.248 (RMSE) after 150 steps without it, and by 0.237 with it.
_STEP = 0.1
_SCALES = 4
_RANDOM_SEED = 20_200_223
_RANDOM_WIDTHS = (16, 32, 48)
_PERCEPTION = 0.5  # of the loss, beside pixels at all scales; about as much at the affine map's codes
_TINY = 1e-3  # squared length below which a place's responses are no direction


class Encoder(nn.Module):
    """Images and reconstructions [N, C, S, S] -> steps [N, D], in deviations of the prior; untrained, all are zero."""

    def __init__(self, plan: PublicPlan, codes: int, rng: torch.Generator) -> None:
        """Weights are drawn from `rng`, those of the last layer are zero."""
        super().__init__()
        self._plan = plan
        layers: list[nn.Module] = []
        before, size = 2 * plan.image.channels, plan.image.size
        while size > _COARSEST:
            width = _WIDTHS[min(len(layers) // 2, len(_WIDTHS) - 1)]
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
            before, size = width, size // 2
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(before * size**2 + condition_width(plan), _HIDDEN)
        self.head = nn.Linear(_HIDDEN, codes)
        for parameter in self.parameters():
            spread = (2.0 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.0
            nn.init.normal_(parameter, 0.0, spread, generator=rng)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor, seen: Tensor, components: Tensor) -> Tensor:
        """The step from the codes of `seen` towards those of `images`."""
        maps = self.features(torch.cat([images, _GAIN * (images - seen)], dim=1))
        given = condition(self._plan, components).to(maps)
        hidden = functional.leaky_relu(self.hidden(torch.cat([maps.flatten(1), given], dim=1)), SLOPE)
        step: Tensor = _STEP * self.head(hidden)
        return step


class Comparison(nn.Module):
    """How far images [N, C, S, S] are from others, each for itself [N]: pixels at four scales, and perception.

    Perception is the squared distance of the directions that a place's responses have (LPIPS: Zhang et al. 2018), mean
    over places and levels of a random network. The sum of squares over scales weighs coarse errors most.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(_RANDOM_SEED)
        self.levels = nn.ModuleList()
        for width in _RANDOM_WIDTHS:
            stride = 2 if len(self.levels) else 1
            level = nn.Conv2d(channels, width, 3, stride, padding=1, padding_mode="replicate", bias=False)
            nn.init.normal_(level.weight, 0.0, (2.0 / (9 * channels)) ** 0.5, generator=generator)
            self.levels.append(level)
            channels = width
        self.requires_grad_(False)

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Both terms [N], means over an image."""
        gap, total = made - real, _PERCEPTION * self.perception(made, real)
        for _ in range(_SCALES):
            total = total + gap.square().mean(dim=(1, 2, 3))
            gap = functional.avg_pool2d(gap, 2)
        return total

    def perception(self, made: Tensor, real: Tensor) -> Tensor:
        """The perceptual term alone [N]."""
        total = made.new_zeros(len(made))
        for own, other in zip(self._directions(made), self._directions(real), strict=True):
            total = total + (own - other).square().sum(dim=1).mean(dim=(1, 2))
        return total / len(self.levels)

    def _directions(self, x: Tensor) -> list[Tensor]:
        found = []
        for level in self.levels:
            x = functional.relu(level(x))
            found.append(x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + _TINY))
        return found

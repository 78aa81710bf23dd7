"""Encoder of the W space: the next step of an inversion (ReStyle: Alaluf et al. 2021), one image at a time.

It sees an image, its current reconstruction and what the spectral model says of their difference, which is nearly the
whole answer where the generator corrects little. Nothing couples records: no normalisation over a batch, no buffers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.components import condition, condition_width
from sfumato_common.generators.flow.flows import condition_planes
from sfumato_common.generators.gan.modulated import SLOPE
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.layout import Layout

_WIDTH = 16
_GAIN = 4.0  # on what the reconstruction leaves of an image, which is a fraction of the image
_COARSEST = 8  # pixels a side that the pair is brought down to before it becomes a code


class Encoder(nn.Module):
    """Pairs [N, 2C, S, S] and code differences [N, D] -> steps [N, D]; untrained, every step is zero."""

    def __init__(self, plan: PublicPlan, rng: torch.Generator) -> None:
        """Weights are drawn from `rng`, those of the last layer are zero."""
        super().__init__()
        self._plan = plan
        channels, codes = plan.image.channels, Layout.of(plan).features
        layers: list[nn.Module] = []
        before, size = 2 * channels + condition_width(plan), plan.image.size
        while size > _COARSEST:
            layers += [nn.Conv2d(before, _WIDTH, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
            before, size = _WIDTH, -(-size // 2)
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(codes + condition_width(plan), 2 * _WIDTH)
        self.gain = nn.Parameter(torch.zeros(codes))
        self.head = nn.Linear(before * size**2 + 2 * _WIDTH, codes)
        for parameter in self.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.0
            nn.init.normal_(parameter, 0.0, spread, generator=rng)
        nn.init.zeros_(self.head.weight)

    def forward(self, pair: Tensor, gap: Tensor, components: Tensor) -> Tensor:
        """The step from a code towards the image's; `gap` is the closed-form code of the image less its own."""
        given = condition(self._plan, components).to(pair)
        image, current = pair.chunk(2, dim=1)
        pair = torch.cat([image, _GAIN * (image - current)], dim=1)
        seen = self.features(condition_planes(given, pair)).flatten(1)
        hidden = functional.leaky_relu(self.hidden(torch.cat([gap, given], dim=1)), SLOPE)
        step: Tensor = self.gain * gap + self.head(torch.cat([seen, hidden], dim=1))
        return step

"""A StyleGAN2 that learned something in seconds."""

from __future__ import annotations

import numpy as np
import torch

from sfumato_common.generators.components import condition
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, to_unit_range


def drawing_films(plan: Plan) -> Arrays:
    """A StyleGAN2 that learned in seconds to draw films of latents that were made of them."""
    films = phantom_arrays(4, 48, plan.image.size)[0]
    x = torch.from_numpy(to_unit_range(in_colour(films) if plan.image.channels == 3 else films))
    rng, y = torch.Generator().manual_seed(1), torch.arange(len(x)) % 2
    small = torch.nn.functional.adaptive_avg_pool2d(x[:, :1], 8).flatten(1)
    z = torch.nn.functional.normalize((small - small.mean(dim=0)) @ torch.randn(64, 512, generator=rng)) * 512**0.5
    network = initial_model("stylegan2-generator", plan)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        rows = torch.randint(len(x), (24,), generator=rng)
        latents = z[rows] + torch.randn(24, 512, generator=rng)
        made = network(latents, condition(plan, y[rows]), draw_noise(plan.image.size, 24, TorchDraws(rng)))
        (made - x[rows]).square().mean().backward()
        optimiser.step()
    return to_arrays("stylegan2-generator", network)


def in_colour(films: AnyArray) -> AnyArray:
    return np.stack([films, 255 - films, np.roll(films, 2, axis=2)], axis=-1)

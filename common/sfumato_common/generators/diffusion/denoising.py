"""Noise and its removal: velocities on a cosine schedule, noise multiplicity, and DDIM.

At the angle p from 0 to a quarter turn an image u has become x = cos(p) u + sin(p) e with e normal noise: the cosine
schedule (Nichol and Dhariwal 2021, section 3.2). The network says the velocity dx/dp = cos(p) e - sin(p) u (Salimans
and Ho 2022, appendix D). Images here are whitened by the released spectral model. Of normal images the expected
velocity is zero everywhere, so a network that says zero draws the spectral release itself, and what it learns is how
images differ from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_QUARTER = math.pi / 2.0


def angles(uniform: Tensor) -> Tensor:
    """Uniforms [N] -> K angles of each of K rows: [N, K] of [N, K], one in each K-th of the quarter turn."""
    levels = uniform.shape[1]
    first = torch.arange(levels, device=uniform.device, dtype=uniform.dtype)
    return (first + uniform) * (_QUARTER / levels)


def denoising_loss(
    forward: Callable[..., Tensor], u: Tensor, condition: Tensor, noise: Tensor, angle: Tensor
) -> Tensor:
    """Mean squared error of velocities, a value a record: noise multiplicity (DPDM: Dockhorn et al. 2023, section 3.2).

    Records [R, C, S, S] with conditions [R, G] become K noisy ones each, by `noise` [R, K, C, S, S] and `angle` [R, K];
    their mean is the record's loss, so that K levels cost a patient no more than one.
    """
    records, levels = angle.shape
    cos, sin = (part[:, :, None, None, None] for part in (angle.cos(), angle.sin()))
    x, velocity = (cos * u[:, None] + sin * noise), (cos * noise - sin * u[:, None])
    given = condition[:, None].expand(-1, levels, -1).flatten(0, 1)
    found = forward(x.flatten(0, 1), angle.flatten(), given)
    return (found - velocity.flatten(0, 1)).square().flatten(1).mean(dim=1).reshape(records, levels).mean(dim=1)


def denoise(forward: Callable[..., Tensor], noise: Tensor, condition: Tensor, steps: int) -> Tensor:
    """Images [N, C, S, S] of noise [N, C, S, S]: `steps` steps of the ODE dx/dp = velocity from the quarter turn to 0.

    DDIM without noise of its own (Song et al. 2021, section 4.1), in the angle and of first order: where the velocity
    is zero nothing moves.
    """
    x, step = noise, _QUARTER / steps
    for number in range(steps):
        angle = torch.full((len(x),), _QUARTER - number * step, device=x.device)
        x = x - step * forward(x, angle, condition)
    return x

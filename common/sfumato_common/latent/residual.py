"""What encoders of latent spaces share: learning residual steps from what a space draws, and Adam on single codes.

ReStyle (Alaluf et al. 2021): an encoder sees an image and what its code so far decodes to, and says the next step. It
learns from pairs that the space draws and from nothing else, so that it is post-processing of what was released.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato_common.latent.space import LatentSpace
from sfumato_common.mechanisms.draws import TorchDraws

_BATCH = 8
_REFINEMENT_RATE = 0.05
# Adam takes a whole step along a gradient that is nothing but rounding, which depends on the batch, unless this is
# added to its length. Losses are sums over a record's pixels, so that gradients that matter are far larger.
_REFINEMENT_EPSILON = 1e-3


@dataclass(frozen=True)
class Residual:
    """How an encoder's next codes follow, and what they are held against.

    `advance` gives codes of images, of what codes so far decode to, of those codes, of the images' codes in closed form
    and of components; `loss` is of codes, of what they decode to, of drawn codes and of drawn images.
    """

    advance: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    iterations: int
    learning_rate: float


def learn_from_draws(
    space: LatentSpace, encoder: nn.Module, residual: Residual, shares: Tensor, steps: int, draws: TorchDraws
) -> None:
    """Adam on `encoder`, one iteration a step, with a fresh batch of components of `shares` [G] after the last one."""
    optimiser = torch.optim.Adam(encoder.parameters(), lr=residual.learning_rate)
    for step in range(steps):
        if step % residual.iterations == 0:
            y = draws.categorical(shares, _BATCH).to(space.device)
            with torch.no_grad():
                true, noise = space.draw(y, draws)
                x = space.decode(true, y, noise)
                closed = codes = space.encode(x, y)
                seen = space.decode(codes, y)
        optimiser.param_groups[0]["lr"] = residual.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        codes = residual.advance(x, seen, codes, closed, y)
        seen = space.decode(codes, y)
        optimiser.zero_grad()
        residual.loss(codes, seen, true, x).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        codes, seen = codes.detach(), seen.detach()


def refine(codes: Tensor, loss: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Codes [N, D] after Adam on `loss`, a sum of what each record has to itself.

    Adam is elementwise, so no record moves another's code.
    """
    codes = codes.clone().requires_grad_()
    optimiser = torch.optim.Adam([codes], lr=_REFINEMENT_RATE, eps=_REFINEMENT_EPSILON)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = _REFINEMENT_RATE * (1.0 - step / steps)
        optimiser.zero_grad()
        with torch.enable_grad():
            total = loss(codes)
        total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return codes.detach()

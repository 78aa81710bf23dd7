"""Codes of images in StyleGAN2's space: an affine map, a residual encoder (ReStyle: Alaluf et al. 2021), then Adam.

The encoder learns from what the released generator draws and from nothing else, so it costs no epsilon and is the same
at every site that uses the same seed. A code depends on its own record alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.stylegan2.encoder import Comparison, Encoder
from sfumato_common.generators.stylegan2.space import StyleSpace
from sfumato_common.latent.residual import Residual, learn_from_draws, refine
from sfumato_common.mechanisms.draws import TorchDraws

_ITERATIONS = 3
_LEARNING_RATE = 1e-3
_CODE_WEIGHT = 0.1  # of squared distances in deviations of the prior


@dataclass(frozen=True, eq=False)
class Inversion:
    """Images -> codes in `space`; without an encoder by the affine map and Adam (Karras et al. 2020, section 5).

    No number of a code leaves what the space allows (`within_prior`), after the encoder and after Adam.
    """

    space: StyleSpace
    comparison: Comparison
    encoder: Encoder | None
    refinement_steps: int

    def __call__(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S] in [-1, 1]."""
        return self.space.within_prior(list(self.stages(images, components).values())[-1], components)

    def stages(self, images: Tensor, components: Tensor) -> dict[str, Tensor]:
        """Codes after each step that is taken; those of the last are not bounded."""
        with torch.no_grad():
            codes = self.space.encode(images, components)
            found = {"affine": codes}
            if self.encoder is not None:
                for _ in range(_ITERATIONS):
                    codes = self.step(images, self.space.decode(codes, components), codes, components)
                found["encoder"] = codes
        if self.refinement_steps:
            found["refined"] = self._refine(images, codes, components)
        return found

    def step(self, images: Tensor, seen: Tensor, codes: Tensor, components: Tensor) -> Tensor:
        """The encoder's next codes [N, D] after `codes`, whose images are `seen`."""
        assert self.encoder is not None
        moved = codes + self.space.spread * self.encoder(images, seen, components)
        return self.space.within_prior(moved, components)

    def _refine(self, images: Tensor, codes: Tensor, components: Tensor) -> Tensor:
        pixels = images[0].numel()

        def loss(moved: Tensor) -> Tensor:
            total: Tensor = pixels * self.comparison(self.space.decode(moved, components), images).sum()
            return total

        return refine(codes, loss, self.refinement_steps)


def fit_inversion(
    space: StyleSpace, plan: PublicPlan, shares: Tensor, seed: int, encoder_steps: int, refinement_steps: int
) -> Inversion:
    """An inversion whose encoder, if any steps are asked for, learned from draws of components of `shares` [G]."""
    comparison = Comparison(plan.image.channels).to(space.device)
    if not encoder_steps:
        return Inversion(space, comparison, None, refinement_steps)
    rng = torch.Generator().manual_seed(seed)
    encoder = Encoder(plan, space.dimension, rng).to(space.device)
    inversion = Inversion(space, comparison, encoder, refinement_steps)

    def loss(codes: Tensor, seen: Tensor, true: Tensor, x: Tensor) -> Tensor:
        away = ((codes - true) / space.spread).square().mean(dim=1)
        total: Tensor = (comparison(seen, x) + _CODE_WEIGHT * away).mean()
        return total

    residual = Residual(
        lambda x, seen, codes, _, y: inversion.step(x, seen, codes, y), loss, _ITERATIONS, _LEARNING_RATE
    )
    learn_from_draws(space, encoder, residual, shares, encoder_steps, TorchDraws(rng))
    encoder.requires_grad_(False)
    return inversion

"""Inversion: codes of images in the generator's W space (ReStyle: Alaluf et al. 2021; refined by Adam).

The encoder is trained on pairs that the released generator draws, (w, G(w)), and on nothing else: it is post-processing
of what was released, the same at every site that uses the same seed. A code depends on its own record alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato_common.generators.gan.encoder import Encoder
from sfumato_common.generators.gan.w_space import WSpace
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.latent.residual import Residual, learn_from_draws, refine
from sfumato_common.mechanisms.draws import TorchDraws

# The encoder's were chosen on generated pairs. For the phantom's generator the mean code starts at an RMSE of 0.40, the
# closed form at 0.086, and 300 steps bring it to 0.05.
_ITERATIONS = 5
_LEARNING_RATE = 2e-3
_CODE_WEIGHT = 1.0
# Of an inverted record's spectral image, in standard deviations of each coefficient by the public power law. On the
# phantom at 32 px the error of a reconstruction is 0.106 in closed form, 0.1015 refined, 0.1027 refined and clipped.
LARGEST_CHANGE = 0.25


@dataclass(frozen=True, eq=False)
class Inversion:
    """Images -> codes in `space`, by the closed form, `encoder` and at most `refinement_steps` of Adam."""

    space: WSpace
    encoder: nn.Module
    refinement_steps: int

    def __call__(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S] in [-1, 1]: what encoder and refinement add is clipped."""
        refined = self._refine(images, self._encode(images, components), components)
        return clip_codes(self.space, self.space.encode(images, components), refined, components)

    def stages(self, images: Tensor, components: Tensor) -> dict[str, Tensor]:
        """Codes after each of the three steps, not clipped."""
        encoded = self._encode(images, components)
        return {
            "closed form": self.space.encode(images, components),
            "encoder": encoded,
            "refined": self._refine(images, encoded, components),
        }

    def _encode(self, x: Tensor, components: Tensor) -> Tensor:
        with torch.no_grad():
            goal = self.space.encode(x, components)
            w = goal
            for _ in range(_ITERATIONS):
                w = w + _step_of(self, x, self.space.decode(w, components), goal, components)
        return w

    def _refine(self, x: Tensor, w: Tensor, components: Tensor) -> Tensor:
        return refine(w, lambda codes: (self.space.decode(codes, components) - x).square().sum(), self.refinement_steps)


def clip_codes(space: WSpace, closed: Tensor, codes: Tensor, components: Tensor) -> Tensor:
    """Codes [N, D] whose spectral images differ from those of `closed` [N, D] by a public radius at most.

    The radius is LARGEST_CHANGE deviations of the public power law, in every DCT coefficient. The closed form decodes
    to the record's own band whatever the spectral model is, and it is linear; what encoder and refinement add is
    neither, and a crafted model could lead it anywhere.
    """
    spectral = space.spectral
    limit = LARGEST_CHANGE * torch.as_tensor(spectral.layout.prior, dtype=torch.float32).sqrt().to(codes.device)
    change = spectral.features_from(codes - closed, components)
    clipped = change.clamp(-limit, limit).nan_to_num(0.0)
    within = (clipped == change).all(dim=1, keepdim=True)
    return torch.where(within, codes, closed + spectral.whiten(clipped, components))


def fit_inversion(
    space: WSpace, plan: PublicPlan, shares: Tensor, seed: int, encoder_steps: int, refinement_steps: int
) -> Inversion:
    """An inversion whose encoder learned from generated pairs only, of components of `shares` [G]."""
    rng = torch.Generator().manual_seed(seed)
    inversion = Inversion(space, Encoder(plan, rng).to(space.device), refinement_steps)
    residual = Residual(
        lambda x, seen, w, goal, y: w + _step_of(inversion, x, seen, goal, y),
        lambda w, seen, true, x: (seen - x).square().mean() + _CODE_WEIGHT * (w - true).square().mean(),
        _ITERATIONS,
        _LEARNING_RATE,
    )
    learn_from_draws(space, inversion.encoder, residual, shares, encoder_steps, TorchDraws(rng))
    inversion.encoder.requires_grad_(False)
    return inversion


def _step_of(inversion: Inversion, x: Tensor, seen: Tensor, goal: Tensor, components: Tensor) -> Tensor:
    """E([x, G(w)]) [N, D]; `goal` is the closed-form code of x."""
    gap = goal - inversion.space.encode(seen, components)
    step: Tensor = inversion.encoder(torch.cat([x, seen], dim=1), gap, components)
    return step

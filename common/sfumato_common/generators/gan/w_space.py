"""The W space of the conditional generator, which starts exactly at the spectral model (after Karras et al. 2020).

A latent z [N, D] holds the whitened coefficients of the spectral model's band, D = channels x bandwidth^2. Codes
w = mapping(z) live in the same coordinates, so the spectral model decodes them linearly: the mean of codes is the code
of a mean image, and a real image has a code in closed form. Codes of single layers are W+ [N, 1 + L, D]: the first is
decoded, the others modulate the synthesis from its coarsest resolution to its finest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from sfumato_common.generators.components import condition
from sfumato_common.generators.gan.generator import Generator
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.whitening import SpectralModel
from sfumato_common.latent.space import Encoding, LatentSpace
from sfumato_common.mechanisms.draws import Draws, TorchDraws
from sfumato_common.rows import row_bytes

_MEAN_DRAWS = 2048
_EMA_HORIZON = 0.3  # of all steps


@dataclass(frozen=True)
class Noise:
    """What an image has beside its code: latents above the band [N, C, S, S], and a map [N, 1, R, R] a resolution."""

    tail: Tensor
    maps: list[Tensor]

    def at(self, rows: Tensor) -> Noise:
        """The noise of the images `rows`."""
        rows = rows.to(self.tail.device)
        return Noise(self.tail[rows], [values[rows] for values in self.maps])

    def __len__(self) -> int:
        """N."""
        return len(self.tail)

    def joined(self, others: Sequence[Noise]) -> Noise:
        """This noise, and then that of `others`."""
        parts = [self, *others]
        maps = [torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True)]
        return Noise(torch.cat([part.tail for part in parts]), maps)


class WSpace(LatentSpace):
    """Codes of a generator on a released spectral model; components [N] say of what a code is one.

    What an image of a mean code is drawn back to is the plain spectral image, which is affine in the members' images
    whatever models a coordinator sent.
    """

    def __init__(self, plan: PublicPlan, generator: Generator, spectral: SpectralModel) -> None:
        self.generator, self.spectral, self._plan = generator, spectral, plan
        self._low = spectral.matrix[: plan.spectral.bandwidth]

    def to(self, device: torch.device) -> WSpace:
        """The same space on `device`."""
        return WSpace(self._plan, self.generator.to(device), self.spectral.to(device))

    @property
    def dimension(self) -> int:
        """D."""
        return self.spectral.mean.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.spectral.matrix.device

    @property
    def layers(self) -> int:
        """1 + L, the codes of an image in W+."""
        return 1 + len(self.generator.resolutions)

    @cached_property
    def image_bytes(self) -> int:
        """Bytes that an image of a code takes with everything kept for a gradient."""
        code = self.spectral.mean.new_zeros(1, self.dimension)
        return row_bytes(self.decode, code, torch.zeros(1, dtype=torch.int64, device=code.device))

    def draw_latent(self, components: Tensor, draws: Draws) -> tuple[Tensor, Noise]:
        """A latent [N, D] and noise for each component, as the spectral model draws them."""
        latent = self.spectral.draw_latent(components, draws)
        z = self._band(latent)
        return z, Noise(latent - self._spread(z), self._maps(len(z), draws, latent.device))

    def draw_z(self, components: Tensor, draws: Draws) -> Tensor:
        """Latents [N, D]."""
        return self.draw_latent(components, draws)[0]

    def draw(self, components: Tensor, draws: Draws) -> tuple[Tensor, Noise]:
        """A code [N, D], mapped of a latent, and noise for each component."""
        z, noise = self.draw_latent(components, draws)
        return self.mapping(z, components), noise

    def draw_noise(self, components: Tensor, draws: Draws) -> Noise:
        """Noise to give to `decode` again and again, so that only the code changes an image."""
        return self.draw_latent(components, draws)[1]

    def mapping(self, z: Tensor, components: Tensor) -> Tensor:
        """Latents [N, D] -> codes [N, D]."""
        return self.generator.mapping(z, condition(self._plan, components).to(z.device))

    def decode(self, codes: Tensor, components: Tensor, noise: Noise | None = None) -> Tensor:
        """Codes [N, D] or [N, 1 + L, D] -> images [N, C, S, S] in [-1, 1]; without noise, smooth above the band."""
        codes = codes if codes.ndim == 3 else codes[:, None].expand(-1, self.layers, -1)
        base = self._spectral(codes[:, 0], components, noise)
        maps = noise.maps if noise is not None else [base.new_zeros(1, 1, r, r) for r in self.generator.resolutions]
        images: Tensor = self.generator(base, codes[:, 1:], *maps)
        return images

    def plain(self, average: Tensor, codes: Tensor, components: Tensor, noise: Noise | None = None) -> Tensor:
        """What the spectral model alone makes of codes [N, D]: images [N, C, S, S], affine in them up to the clamp."""
        del average
        return self._spectral(codes, components, noise)

    def encode(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] whose spectral decoding is nearest to images [N, C, S, S]: where an inversion starts."""
        return self._band(self.spectral.encode(images, components)[0])

    def encoding(self, shares: Tensor, seed: int, encoder_steps: int, refinement_steps: int) -> Encoding:
        """The closed form, a residual encoder and Adam on the code: see `gan.inversion`."""
        from sfumato_common.generators.gan.inversion import fit_inversion

        return fit_inversion(self, self._plan, shares, seed, encoder_steps, refinement_steps)

    def centre(self, components: Tensor) -> Tensor:
        """Mean code [N, D] of each component over a fixed public draw, the same on every machine."""
        means = {}
        with torch.no_grad():
            for component in set(components.tolist()):
                same = torch.full((_MEAN_DRAWS,), component, dtype=torch.int64, device=components.device)
                draws = TorchDraws(torch.Generator().manual_seed(component))
                means[component] = self.mapping(self.draw_z(same, draws), same).mean(dim=0)
        return torch.stack([means[component] for component in components.tolist()])

    def truncate(self, w: Tensor, components: Tensor, psi: float) -> Tensor:
        """Codes [N, D] pulled to their component's mean: `psi` 1 leaves them, 0 gives the mean (Karras et al. 2019)."""
        mean = self.centre(components)
        return mean + psi * (w - mean)

    def mix(self, shape: Tensor, look: Tensor, crossover: int = 1) -> Tensor:
        """Style mixing, W+: `shape`'s first `crossover` codes (1: only what is decoded) and `look`'s others."""
        assert 0 <= crossover <= self.layers
        first = torch.arange(self.layers, device=shape.device)[:, None] < crossover
        return torch.where(first, shape[:, None], look[:, None])

    def _spectral(self, codes: Tensor, components: Tensor, noise: Noise | None) -> Tensor:
        latent = self._spread(codes)
        if noise is not None:
            latent = latent + noise.tail
        return self.spectral.decode(latent, components).clamp(-1.0, 1.0)

    def _band(self, latent: Tensor) -> Tensor:
        return (self._low @ latent @ self._low.T).flatten(1)

    def _spread(self, z: Tensor) -> Tensor:
        band = len(self._low)
        return self._low.T @ z.reshape(len(z), -1, band, band) @ self._low

    def _maps(self, count: int, draws: Draws, device: torch.device) -> list[Tensor]:
        shapes = [(count, 1, r, r) for r in self.generator.resolutions]
        return [draws.normal(shape).to(device) for shape in shapes]


def draw_images(
    plan: PublicPlan, generator: Generator, spectral: SpectralModel, components: Tensor, draws: Draws
) -> Tensor:
    """Images [N, C, S, S] in [-1, 1] for components [N]; differentiable in the generator's parameters."""
    space = WSpace(plan, generator, spectral)
    z, noise = space.draw(components, draws)
    return space.decode(space.mapping(z, components), components, noise)


def follow(average: nn.Module, generator: nn.Module, steps: int) -> None:
    """One step of the moving average of weights that is released (Yazici et al. 2019), of `steps` in all."""
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), generator.parameters(), strict=True):
            slow.lerp_(fast, 1.0 / max(2.0, _EMA_HORIZON * steps))

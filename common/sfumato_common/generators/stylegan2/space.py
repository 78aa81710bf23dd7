"""The W space of a released StyleGAN2: a code is 512 numbers for every layer (W), or as many a layer of its own (W+).

Decoding is not linear: an image of a mean code is an image of its own, not a blend. A code in closed form is the affine
map that fits the generator's own draws best, from an image of 16 pixels a side to its code: it is made of the released
model and public seeds. What a code keeps of a real image beyond that is found by an encoder and by Adam (`inversion`),
within the range of the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from sfumato_common.generators.components import component_count, condition
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.stylegan2.generator import CODE, Generator, code_layers
from sfumato_common.generators.stylegan2.networks import GENERATOR, generator
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage
from sfumato_common.generators.weights import load_network
from sfumato_common.latent.space import Encoding, LatentSpace
from sfumato_common.mechanisms.draws import Draws, TorchDraws
from sfumato_common.rows import by_chunks, row_bytes
from sfumato_common.types import Arrays

_THUMB, _PLAIN = 16, 8  # pixels a side
_MEAN_DRAWS, _FIT_DRAWS = 2048, 1024  # codes a component; images in all
_RIDGE = 1.0  # of the mean variance of what is seen; with less, codes of strange images leave what is drawn
_WIDEST = 4.0  # deviations of the prior, beyond which no code of an image lies


@dataclass(frozen=True, eq=False)
class Noise:
    """A map [N, 1, R, R] a convolution."""

    maps: list[Tensor]

    def __len__(self) -> int:
        """N."""
        return len(self.maps[0])

    def at(self, rows: Tensor) -> Noise:
        """The noise of the images `rows`."""
        return Noise([part[rows.to(part.device)] for part in self.maps])

    def joined(self, others: Sequence[Noise]) -> Noise:
        """This noise, and then that of `others`."""
        return Noise([torch.cat(parts) for parts in zip(*(one.maps for one in (self, *others)), strict=True)])


@dataclass(frozen=True, eq=False)
class Affine:
    """The affine map: centre [G, 512] and spread [512] of codes, mean thumbnails [G, P], and its slope [P, 512]."""

    centre: Tensor
    spread: Tensor
    thumbs: Tensor
    slope: Tensor

    def to(self, device: torch.device) -> Affine:
        """The same on `device`."""
        return Affine(*(part.to(device) for part in vars(self).values()))


class StyleSpace(LatentSpace):
    """Codes of a generator; components [N] say under which condition a code was mapped: decoding needs none.

    Where the stage says `codes: w+` a code holds one of 512 numbers a layer, from coarse to fine; drawn ones, and those
    of the affine map, are alike in every layer.

    What an image of a mean code is drawn back to is the average of its members' images at 8 pixels a side: no code
    decodes to images that are affine in its images.
    """

    def __init__(self, plan: PublicPlan, network: Generator, affine: Affine | None = None) -> None:
        self.generator, self._plan, self._given = network, plan, affine
        every = code_layers(plan.image.size)
        self._repeats, self._layers = (every, 1) if stage_of(plan, StyleGan2Stage).codes == "w+" else (1, every)

    def to(self, device: torch.device) -> StyleSpace:
        """The same space on `device`; the affine map is fitted once, where they are first asked for."""
        return StyleSpace(self._plan, self.generator.to(device), self.affine.to(device))

    @property
    def dimension(self) -> int:
        """512, or as many a layer."""
        return self._repeats * CODE

    @property
    def layers(self) -> int:
        """L, where an image may have as many codes as layers; 1 where its code has them already."""
        return self._layers

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.generator.parameters()).device

    @cached_property
    def image_bytes(self) -> int:
        """Bytes that an image of a code takes with everything kept for a gradient."""
        code = torch.zeros(1, self.dimension, device=self.device)
        return row_bytes(self.decode, code, torch.zeros(1, dtype=torch.int64, device=self.device))

    def draw(self, components: Tensor, draws: Draws) -> tuple[Tensor, Noise]:
        """A code [N, D], mapped of a latent, and noise for each component."""
        z = draws.normal((len(components), CODE)).to(self.device)
        return self._repeat(self.mapping(z, components)), self._noise(len(components), draws)

    def draw_noise(self, components: Tensor, draws: Draws) -> Noise:
        """Noise to give to `decode` again and again, so that only the code changes an image."""
        draws.normal((len(components), CODE))  # what `draw` draws first
        return self._noise(len(components), draws)

    def mapping(self, z: Tensor, components: Tensor) -> Tensor:
        """Latents [N, 512] -> codes [N, 512]."""
        codes: Tensor = self.generator.mapping(z, condition(self._plan, components).to(z.device))
        return codes

    def decode(self, codes: Tensor, components: Tensor, noise: Noise | None = None) -> Tensor:
        """Codes [N, D] or [N, L, 512] -> images [N, C, S, S] in [-1, 1]; without noise, without fine grain."""
        layers = codes.reshape(len(codes), -1, CODE).expand(-1, code_layers(self._plan.image.size), -1)
        images: Tensor = self.generator.synthesis(layers, noise.maps if noise else None)
        return images.clamp(-1.0, 1.0)

    def plain(self, average: Tensor, codes: Tensor, components: Tensor, noise: Noise | None = None) -> Tensor:
        """`average` [N, C, S, S] as 8 pixels a side show it."""
        del codes, components, noise
        small = functional.adaptive_avg_pool2d(average, _PLAIN)
        return functional.interpolate(small, size=average.shape[-2:], mode="bilinear", align_corners=False)

    def encode(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S] by the affine map, within the range of the prior."""
        own = self.affine
        seen = _thumbnails(images) - own.thumbs[components]
        return self.within_prior(self._repeat(own.centre[components] + seen @ own.slope), components)

    def within_prior(self, codes: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] with every number at most four of the prior's deviations from its component's mean."""
        centre, limit = self.centre(components), _WIDEST * self.spread
        return centre + (codes - centre).nan_to_num(0.0).clamp(-limit, limit)

    def encoding(self, shares: Tensor, seed: int, encoder_steps: int, refinement_steps: int) -> Encoding:
        """The affine map, a residual encoder and Adam on the code: see `stylegan2.inversion`."""
        from sfumato_common.generators.stylegan2.inversion import fit_inversion

        return fit_inversion(self, self._plan, shares, seed, encoder_steps, refinement_steps)

    def centre(self, components: Tensor) -> Tensor:
        """Mean code [N, D] of each component over a fixed public draw, the same on every machine."""
        return self._repeat(self.affine.centre[components])

    @property
    def spread(self) -> Tensor:
        """The prior's deviation [D] of every number."""
        return self._repeat(self.affine.spread)

    def _repeat(self, codes: Tensor) -> Tensor:
        return codes.repeat(*[1] * (codes.ndim - 1), self._repeats)

    def _noise(self, count: int, draws: Draws) -> Noise:
        return Noise([part.to(self.device) for part in draw_noise(self._plan.image.size, count, draws)])

    @cached_property
    def affine(self) -> Affine:
        """The closed form, fitted once: it costs as many draws as `_FIT_DRAWS`."""
        return self._given or _fit(self)


def space_of(plan: PublicPlan, arrays: Arrays) -> StyleSpace:
    """The W space of a released generator, whose weights are not to be trained further; on the CPU."""
    return StyleSpace(plan, load_network(GENERATOR, generator, plan, arrays).requires_grad_(False))


def _thumbnails(images: Tensor) -> Tensor:
    """[N, C, S, S] -> [N, P]."""
    return functional.avg_pool2d(images, max(1, images.shape[-1] // _THUMB)).flatten(1)


def _fit(space: StyleSpace) -> Affine:
    """Ridge regression of codes on thumbnails of draws, less their component's means; in float64."""
    count = component_count(space._plan)
    each = -(-_FIT_DRAWS // count)
    centre, codes, thumbs, means = [], [], [], []
    with torch.no_grad():
        for component in range(count):
            draws = TorchDraws(torch.Generator().manual_seed(component))
            same = torch.full((_MEAN_DRAWS,), component, device=space.device)
            centre.append(space.mapping(draws.normal((_MEAN_DRAWS, CODE)).to(space.device), same).mean(dim=0))
            own = space.mapping(draws.normal((each, CODE)).to(space.device), same[:each])
            noise = space._noise(each, draws)

            def seen(w: Tensor, y: Tensor, *maps: Tensor) -> Tensor:
                return _thumbnails(space.decode(w, y, Noise(list(maps))))

            small = by_chunks(seen, own, same[:each], *noise.maps)
            means.append(small.mean(dim=0))
            codes.append((own - centre[-1]).double().cpu())
            thumbs.append((small - means[-1]).double().cpu())
    w, x = torch.cat(codes), torch.cat(thumbs)
    slope = _ridge(x, w).float().to(space.device)
    spread = w.square().mean(dim=0).sqrt().float().to(space.device)
    return Affine(torch.stack(centre), spread, torch.stack(means), slope)


def _ridge(seen: Tensor, wanted: Tensor) -> Tensor:
    """[P, Q] that takes rows [M, P] nearest to rows [M, Q]."""
    products = seen.T @ seen
    products.diagonal().add_(_RIDGE * products.diagonal().mean() + 1e-12)
    slope: Tensor = torch.linalg.solve(products, seen.T @ wanted)
    return slope

"""The space of a released codec: codes of a public network, the prior by class and site, and grain that is nobody's.

A code is in units of the public deviation of each number. The frozen network makes it of one image and draws it, so
that no coordinator chooses anything in codes. Their mean is an average of low frequencies, as a mean of pixels is; what
is fine is drawn anew for it. An image has grain beside its code: noise of the public power law above the codec's
cosines, at a share of its amplitude, for what no code of so few numbers holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sfumato_common.codec.network import Codec, lowest
from sfumato_common.generators.codec.layout import CodecLayout
from sfumato_common.generators.codec.schemas import AUTOENCODER, build_autoencoder
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.generators.weights import load_network
from sfumato_common.latent.space import LatentSpace
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.memory import TILE
from sfumato_common.rows import by_chunks, row_bytes
from sfumato_common.types import AnyArray, Arrays, ByteImages, to_unit_range

_FARTHEST = 20.0  # deviations: beyond, numbers are not taken at their word
_GRAIN = 0.3  # of the power law's amplitude


@dataclass(frozen=True, eq=False)
class Grain:
    """Standard normal pixels [N, C, S, S]."""

    pixels: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.pixels)

    def at(self, rows: Tensor) -> Grain:
        """The grain of the images `rows`."""
        return Grain(self.pixels[rows.to(self.pixels.device)])

    def joined(self, others: Sequence[Grain]) -> Grain:
        """This grain, and then that of `others`."""
        return Grain(torch.cat([grain.pixels for grain in (self, *others)]))


class CodecSpace(LatentSpace):
    """Class-conditional Gaussian over features, which are codes over public scales, and the network that draws them."""

    def __init__(self, codec: Codec, layout: CodecLayout, arrays: Arrays) -> None:
        """`arrays` holds the released mean and factor of each component."""
        self._codec, self._layout, self._arrays = codec, layout, arrays
        self._mean, self._factor = (_float(arrays[f"codec/{name}"], codec.device) for name in ("mean", "factor"))
        unit = np.sqrt(layout.prior)
        self._unit, self._law = _float(unit, codec.device), _float(unit * layout.scale, codec.device)
        above = public_scale(layout.form.size, layout.bits) * _GRAIN
        above[lowest(layout.form.size, layout.form.cosines)] = 0.0
        self._above, self._matrix = _float(above, codec.device), _float(dct_matrix(layout.form.size), codec.device)

    @property
    def dimension(self) -> int:
        """D, the codec's numbers."""
        return self._layout.features

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._codec.device

    def to(self, device: torch.device) -> CodecSpace:
        """The same space on `device`."""
        return CodecSpace(self._codec.to(device), self._layout, self._arrays)

    @cached_property
    def image_bytes(self) -> int:
        """Bytes that an image of a code takes with everything kept for a gradient."""
        return row_bytes(self._images, self._unit.new_zeros(1, self.dimension), self._silence(1).pixels)

    def encode(self, images: Tensor, components: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S]; of every component the same."""
        del components
        return self._codec.encode(images) / self._law

    def decode(self, codes: Tensor, components: Tensor, noise: Grain | None = None) -> Tensor:
        """Images [N, C, S, S] of codes [N, D] or [N, 1, D]; without noise there is no grain."""
        del components
        return self._images(codes.flatten(1), (self._silence(len(codes)) if noise is None else noise).pixels)

    def plain(self, average: Tensor, codes: Tensor, components: Tensor, noise: Grain | None = None) -> Tensor:
        """The kept cosines of `average` [N, C, S, S]: the bent ones are not affine in images."""
        del codes, components, noise
        return self._codec.kept(average).clamp(-1.0, 1.0)

    def draw(self, components: Tensor, draws: Draws) -> tuple[Tensor, Grain]:
        """Codes [N, D] of the released Gaussians, and grain."""
        normal = draws.normal((len(components), self.dimension)).to(self.device)
        grain = self.draw_grain(len(components), draws)
        rows = zip(components.tolist(), normal, strict=True)
        features = self._mean[components] + torch.stack([self._factor[k] @ z for k, z in rows])
        return features / self._unit, grain

    def centre(self, components: Tensor) -> Tensor:
        """The released mean [N, D] of each component."""
        return self._mean[components] / self._unit

    def sample(self, y: Tensor, draws: Draws) -> Tensor:
        """Images [N, C, S, S] in [-1, 1] for components [N]."""
        codes, grain = self.draw(y, draws)
        return by_chunks(self._images, codes, grain.pixels)

    def features(self, images: ByteImages) -> Float64:
        """See `features_of`."""
        return features_of(self._layout, self._codec, images)

    def images_of_features(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Images [N, C, S, S] of features [N, d], with grain of normal pixels."""
        return self._images(features / self._unit, pixels)

    def draw_grain(self, count: int, draws: Draws) -> Grain:
        """Grain of so many images."""
        form = self._layout.form
        return Grain(draws.normal((count, form.channels, form.size, form.size)).to(self.device))

    def _images(self, codes: Tensor, pixels: Tensor) -> Tensor:
        grain = self._matrix.T @ (self._above * (self._matrix @ pixels @ self._matrix.T)) @ self._matrix
        drawn = self._codec.decode(codes.clamp(-_FARTHEST, _FARTHEST) * self._law) + grain
        return drawn.nan_to_num(0.0).clamp(-1.0, 1.0)

    def _silence(self, count: int) -> Grain:
        form = self._layout.form
        return Grain(self._unit.new_zeros(count, form.channels, form.size, form.size))


def codec_space(plan: PublicPlan, arrays: Arrays) -> CodecSpace:
    """The space of a plan's released codec, on the CPU. Raises VerificationError where the weights do not fit."""
    return CodecSpace(released_codec(plan, arrays), CodecLayout.of(plan), arrays)


def released_codec(plan: PublicPlan, arrays: Arrays) -> Codec:
    """The frozen network in `arrays`, on the CPU. Raises VerificationError where the weights do not fit the plan."""
    return load_network(AUTOENCODER, build_autoencoder, plan, arrays).eval().requires_grad_(False)


def features_of(layout: CodecLayout, codec: Codec, images: ByteImages) -> Float64:
    """Features [M, d], not clipped, of images [M, S, S(, 3)].

    Each row depends on its own image alone, to the last bit; one that is not finite counts as zero.
    """
    if not len(images):
        return np.zeros((0, layout.features))
    # in tiles of one shape, however many there are: last bits hang on it, and crafted weights could blow them up
    tiles = torch.split(torch.from_numpy(to_unit_range(images)), TILE)
    codes = torch.cat([by_chunks(lambda rows: codec.encode(rows.to(codec.device)).cpu(), tile) for tile in tiles])
    features = codes.double().numpy() / layout.scale
    return np.where(np.isfinite(features).all(axis=1, keepdims=True), features, 0.0)


def _float(array: AnyArray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32)).to(device)

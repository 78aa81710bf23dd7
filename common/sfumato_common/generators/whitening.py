"""Whitening: the way between images and what flows and diffusion learn, by the released model that a plan begins with.

A whitened image is standard normal where the released Gaussian is right: a network that does nothing draws that model.
Of pixels it is an image of the plan's size (`spectral.whitening`). Of a code's numbers (a codec's, or those of an
appearance release) it is a small image that does not grow with the pixels: the whitened numbers are its lowest cosines,
in their own order (`WhiteCodes`). The corner beyond is normal noise, anew for every record, as flows are augmented
(Huang et al. 2020): a flow of whole planes needs something there, and it means nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.dct import dct_matrix
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.generators.white_form import WhiteForm
from sfumato_common.mechanisms.draws import Draws, TorchDraws
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.rows import by_chunks
from sfumato_common.types import AnyArray, Arrays, ByteImages

_FARTHEST = 20.0  # deviations: beyond, numbers are not taken at their word


class Whitening(Protocol):
    """Images and whitened images [N, C, S, S] of components [N]; a row depends on its own record and draws alone."""

    matrix: Tensor
    mean: Tensor

    @property
    def form(self) -> WhiteForm:
        """Of whitened images; `matrix` [S, S] takes them to their cosines."""

    @property
    def pixels(self) -> bool:
        """Whether records are the images' own pixels, of which nothing is computed beforehand."""

    @property
    def temperature(self) -> Float64:
        """[C S S]: deviation of each cosine of latents that images are drawn from."""

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""

    def records(self, images: ByteImages) -> AnyArray:
        """What training keeps of integer images [N, S, S(, 3)]: themselves, or float32 features [N, d]."""

    def spread(self, values: Tensor, draws: SecretStream | TorchDraws) -> Tensor:
        """What is random in whitening, on the CPU: pixels [N, C, S, S] dequantised, or features [N, d] filled up."""

    def white(self, spread: Tensor, y: Tensor) -> Tensor:
        """Whitened images [N, C, S, S] of what `spread` gave."""

    def draw_latent(self, y: Tensor, draws: Draws) -> Tensor:
        """Latents [N, C, S, S] that images are drawn from."""

    def draw_noise(self, count: int, draws: Draws) -> tuple[Tensor, ...]:
        """What so many images show beside their whitened ones, each [N, ...]."""

    def decode(self, u: Tensor, y: Tensor, *noise: Tensor) -> Tensor:
        """Images [N, C, S, S] of whitened ones, and of what `draw_noise` gave."""

    def low(self, u: Tensor) -> Tensor:
        """Whitened features [N, d] of whitened images: those that the release has moments of."""

    def moved(self, offset: Tensor, scale: Tensor) -> Self:
        """The same, after what is decoded was shifted and stretched by [G, d] in whitened features."""


class Coder(Protocol):
    """A deterministic public map of one image to features, and the way back."""

    def to(self, device: torch.device) -> Coder:
        """The same on `device`."""

    def features(self, images: ByteImages) -> Float64:
        """Features [N, d] of integer images [N, S, S(, 3)]; one that is not finite counts as zero."""

    def noise(self, count: int, draws: Draws) -> tuple[Tensor, ...]:
        """What images have beside their features, each [N, ...]."""

    def images(self, features: Tensor, *noise: Tensor) -> Tensor:
        """Images [N, C, S, S] of features [N, d]."""


class Factors(nn.Module):
    """Factors [G, d, d] of covariances, one after another, and their inverses, computed when they are first asked for.

    Those of many sites fitted apart are most of what a coordinator has in memory. So a float32 array is shared, and not
    to be written to any more; drawing needs no inverse; and a stretch is kept beside the matrices.
    """

    matrices: Tensor
    _inverse: Tensor | None
    _stretch: Tensor | None

    def __init__(self, factor: AnyArray) -> None:
        super().__init__()
        shared = factor.dtype == np.float32 and factor.flags.writeable and factor.flags.c_contiguous
        self.register_buffer("matrices", torch.from_numpy(factor) if shared else torch.tensor(factor).float())
        self.register_buffer("_inverse", None)
        self.register_buffer("_stretch", None)

    def __len__(self) -> int:
        """G."""
        return len(self.matrices)

    def __copy__(self) -> Factors:
        found = Factors.__new__(Factors)
        found.__dict__ = {**vars(self), "_buffers": dict(self._buffers)}
        return found

    def __getitem__(self, k: int) -> Tensor:
        """The factor [d, d] of component k."""
        return self.matrices[k] if self._stretch is None else self.matrices[k] / self._stretch[k]

    def __iter__(self) -> Iterator[Tensor]:
        """Each factor [d, d]."""
        return (self[k] for k in range(len(self)))

    @property
    def inverses(self) -> Iterator[Tensor]:
        """The inverse [d, d] of each factor."""
        if self._inverse is None:
            inverse = torch.empty_like(self.matrices, device="cpu")
            # in double precision one at a time
            for k, matrix in enumerate(self.matrices):
                inverse[k] = torch.from_numpy(np.linalg.inv(_double(matrix)))
            self._inverse = inverse.to(self.matrices.device)
        for k, matrix in enumerate(self._inverse):
            yield matrix if self._stretch is None else matrix * self._stretch[k][:, None]

    def log_det(self) -> Float64:
        """Logarithm [G] of each factor's determinant, before a stretch."""
        return np.array([np.linalg.slogdet(_double(matrix))[1] for matrix in self.matrices])

    @property
    def log_stretch(self) -> Tensor:
        """Logarithm [G] of what a stretch divided the determinants by."""
        stretch = torch.ones_like(self.matrices[:, 0]) if self._stretch is None else self._stretch
        return stretch.log().sum(dim=1)

    def stretched(self, scale: Tensor) -> Factors:
        """The same with columns over `scale` [G, d]."""
        assert self._stretch is None, "factors are stretched once"
        found = copy.copy(self)
        found._stretch = scale
        return found

    def shift(self, offset: Tensor) -> Tensor:
        """Each factor times `offset` [G, d], [G, d]."""
        shift = torch.zeros_like(offset)
        # a product of one pair has other last bits than each of a batch
        twice = min(2, len(self))
        for k in offset.any(dim=1).nonzero()[:, 0].tolist():
            pairs = self[k].expand(twice, -1, -1), offset[k].expand(twice, -1)
            shift[k] = torch.einsum("gij,gj->gi", *pairs)[0]
        return shift


class WhiteCodes:
    """Features by `coder`, whitened by Gaussians of mean [G, d] and factor [G, d, d], as small images of `form`."""

    pixels = False

    def __init__(self, coder: Coder, form: WhiteForm, mean: AnyArray, factor: AnyArray) -> None:
        self.form, self._coder = form, coder
        self.mean, self._factors = torch.tensor(mean, dtype=torch.float32), Factors(factor)
        self.matrix = torch.tensor(dct_matrix(form.size), dtype=torch.float32)
        self._places = torch.from_numpy(form.places)

    @property
    def temperature(self) -> Float64:
        """[C S S]: all one."""
        return np.ones(self.form.channels * self.form.size**2)

    def to(self, device: torch.device) -> WhiteCodes:
        """The same on `device`; what is drawn is drawn on the CPU, and moved."""
        found = copy.copy(self)
        found._coder, found._factors = self._coder.to(device), copy.copy(self._factors).to(device)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(found, name, value.to(device))
        return found

    def records(self, images: ByteImages) -> AnyArray:
        """Features [N, d], float32, which are computed once for all rounds' batches."""
        return self._coder.features(images).astype(np.float32)

    def spread(self, values: Tensor, draws: SecretStream | TorchDraws) -> Tensor:
        """Planes [N, C, S, S] of features [N, d] at their places, and noise at the others."""
        shape = len(values), self.form.channels * self.form.size**2
        planes = draws.normal64(shape).float() if isinstance(draws, SecretStream) else draws.normal(shape)
        planes[:, self._places.to(planes.device)] = values
        return planes.view(len(values), *self.form.shape)

    def white(self, spread: Tensor, y: Tensor) -> Tensor:
        """Whitened images [N, C, S, S] of planes of features."""
        flat = spread.flatten(1).clone()
        z = per_class(self._factors.inverses, flat[:, self._places] - self.mean[y], y)
        flat[:, self._places] = z.clamp(-_FARTHEST, _FARTHEST)
        return self.matrix.T @ flat.view(spread.shape) @ self.matrix

    def draw_latent(self, y: Tensor, draws: Draws) -> Tensor:
        """Standard normal latents [N, C, S, S]."""
        return draws.normal((len(y), *self.form.shape)).to(self.matrix.device)

    def draw_noise(self, count: int, draws: Draws) -> tuple[Tensor, ...]:
        """Of the coder."""
        return self._coder.noise(count, draws)

    def decode(self, u: Tensor, y: Tensor, *noise: Tensor) -> Tensor:
        """Images [N, C, S, S] of whitened ones: their places' numbers, whatever stands in the corner."""
        z = self.low(u).nan_to_num(0.0).clamp(-_FARTHEST, _FARTHEST)
        return by_chunks(self._coder.images, per_class(self._factors, z, y) + self.mean[y], *noise)

    def low(self, u: Tensor) -> Tensor:
        """Whitened features [N, d]: all of a record's own."""
        return (self.matrix @ u @ self.matrix.T).flatten(1)[:, self._places]

    def moved(self, offset: Tensor, scale: Tensor) -> WhiteCodes:
        """See the protocol."""
        found = copy.copy(self)
        found._factors = self._factors.stretched(scale)
        found.mean = self.mean - found._factors.shift(offset)
        return found


def whitening_of(plan: PublicPlan, arrays: Arrays) -> Whitening:
    """The whitening of the plan's first stage, of released arrays, on the CPU. Raises VerificationError."""
    from sfumato_common.generators import GENERATORS

    whitening = GENERATORS[plan.base].whitening
    assert whitening is not None, "a plan begins with a stage that whitens"
    return whitening(plan, arrays)


def per_class(matrices: Iterable[Tensor], vectors: Tensor, y: Tensor) -> Tensor:
    """matrices[y] @ vectors without a matrix a record: one product a class, always over all rows.

    A product over a class's own rows alone would give an image other last bits when another image comes or goes.
    """
    result = torch.zeros_like(vectors)
    for k, matrix in enumerate(matrices):
        result = torch.where((y == k)[:, None], vectors @ matrix.T, result)
    return result


def _double(matrix: Tensor) -> Float64:
    return matrix.cpu().numpy().astype(np.float64)

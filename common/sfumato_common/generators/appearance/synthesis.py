"""Images of a released appearance model: post-processing of its release and of public constants alone.

A feature vector is drawn of the component's Gaussian; the low frequencies are turned back into the sampled pose; each
band's texture is scaled to the sampled energies, cell by cell, with two corrections; exposure is put back. WHERE things
lie, how bright they are and how strong the texture is are the patients', under the guarantee; the texture's own lines
are nobody's: noise with the public power law's spectrum, or the bands of one of the three phantom images whose aligned
low frequencies are nearest to the drawn ones, or both in random shares.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_common.errors import VerificationError
from sfumato_common.generators.appearance.feature_map import FLOOR, GRID, AppearanceLayout
from sfumato_common.generators.appearance.features import OPPONENT, aligned_pool, centre_of_map
from sfumato_common.generators.appearance.pose import inverse_of, matrices_of, warp
from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.types import Arrays

_NEAREST = 3
_CORRECTIONS = 2
_PIXELS = 2**21  # of a chunk
# public bounds of what is drawn: no pose beyond .4, no deviation beyond these, no energy above that of a full contrast
_POSE_BOUND, _LOG_DEVIATIONS, _LOG_ENERGIES = 0.4, (-3.0, 0.3), (float(np.log(FLOOR)) - 0.5, 1.0)
# what a source lacks in a cell is not amplified without bound
_PHANTOM_FLOOR, _NOISE_FLOOR, _RAW_FLOOR, _CORRECTION = 0.004, 0.005, 0.2, (0.3, 1.6)
_SHARES = 1024  # steps of a random share


class AppearanceModel:
    """Class-conditional Gaussian over features, and the synthesis of images [N, C, S, S] of them."""

    def __init__(self, plan: PublicPlan, arrays: Arrays) -> None:
        """`arrays` holds the released mean and factor of each component."""
        layout = AppearanceLayout.of(plan)
        self.map, self._detail = layout.map, stage_of(plan, AppearanceStage).detail
        self._mean, self._factor = (_float(arrays[name]) for name in ("mean", "factor"))
        self._matrix, self._bands = _float(dct_matrix(self.map.size)), torch.from_numpy(self.map.bands)
        self._law = _float(public_scale(self.map.size))
        self._pool = None if self._detail == "noise" else _pool(self.map)
        centre = centre_of_map(self.map) if self._pool is None else self._pool.centre
        self._centre, self._scale = _float(centre.numbers), _float(self.map.scale)

    def sample(self, y: Tensor, draws: Draws) -> Tensor:
        """Images [N, C, S, S] in [-1, 1] for components [N]."""
        rows = max(1, _PIXELS // self.map.size**2)
        return torch.cat([self._draw(some, draws) for some in torch.split(y, rows)])

    def _draw(self, y: Tensor, draws: Draws) -> Tensor:
        normal = draws.normal((len(y), self.map.features))
        features = torch.zeros_like(normal)
        for k in range(len(self._mean)):  # over all rows: an image does not depend on the others' components
            features = torch.where((y == k)[:, None], normal @ self._factor[k].T + self._mean[k], features)
        return self.synthesise(features * self._scale + self._centre, draws)

    def synthesise(self, numbers: Tensor, draws: Draws) -> Tensor:
        """Images [N, C, S, S] of the map's numbers [N, d]; what is public in them is drawn from `draws`."""
        counts = [len(self.map.places), self.map.energies, self.map.parameters]
        low, energies, parameters = torch.split(numbers, counts, dim=1)
        back = None
        if self.map.aligned:
            back = inverse_of(matrices_of(parameters[:, 2:].clamp(-_POSE_BOUND, _POSE_BOUND)))
        planes = self._low_planes(low)
        planes = planes if back is None else warp(planes, back)
        wanted = (energies.clamp(*_LOG_ENERGIES).exp() - FLOOR).clamp(min=1e-4)
        wanted = wanted.view(len(low), len(self._bands), GRID, GRID)
        planes[:, 0] = self._with_texture(planes[:, 0], wanted, low[:, : self.map.coefficients], back, draws)
        planes = planes * parameters[:, 1].clamp(*_LOG_DEVIATIONS).exp()[:, None, None, None]
        planes[:, 0] += parameters[:, 0, None, None]
        if self.map.channels == 3:
            planes = torch.einsum("cp,nphw->nchw", _float(np.linalg.inv(OPPONENT)), planes)
        return planes.clamp(-1.0, 1.0)

    def _low_planes(self, low: Tensor) -> Tensor:
        """Planes [N, C, S, S] of coefficients [N, K or K + 2 K/4]."""
        size, places = self.map.size, [self.map.low, self.map.chroma, self.map.chroma][: self.map.channels]
        planes, first = torch.zeros(len(low), len(places), size * size), 0
        for plane, own in enumerate(places):
            planes[:, plane, torch.from_numpy(own)] = low[:, first : first + len(own)]
            first += len(own)
        return self._image(planes.view(len(low), len(places), size, size))

    def _with_texture(self, low: Tensor, wanted: Tensor, kept: Tensor, back: Tensor | None, draws: Draws) -> Tensor:
        """Luminance [N, S, S] with texture whose cells have the energies `wanted` [N, B, 4, 4]."""
        noise = self._split(draws.normal(low.shape) * self._law, in_space=False)
        noise = noise / _smooth(_local(noise).clamp(min=_NOISE_FLOOR), self.map.size)
        raw = noise
        if self._pool is not None:
            share = torch.ones(len(low))
            if self._detail == "mixed":
                share = (draws.integers(_SHARES, len(low)) + 0.5) / _SHARES
            detail = self._split(self._phantoms(kept, back, draws))
            detail = detail / _smooth(_local(detail).clamp(min=_PHANTOM_FLOOR), self.map.size)
            share = share[:, None, None, None]
            raw = share.sqrt() * detail + (1.0 - share).sqrt() * noise
        gain = wanted / _local(raw).clamp(min=_RAW_FLOOR)
        for _ in range(_CORRECTIONS):
            found = _local(self._split(self._textured(low, raw, gain)))
            gain = gain * (wanted / found.clamp(min=1e-4)).clamp(*_CORRECTION)
        image = self._textured(low, raw, gain)
        if self._pool is None:
            return image
        # what the phantom lacks, black corners for instance, is filled with noise
        missing = (wanted.square() - _local(self._split(image)).square()).clamp(min=0.0).sqrt()
        return self._textured(image, noise, missing)

    def _phantoms(self, kept: Tensor, back: Tensor | None, draws: Draws) -> Tensor:
        """One of the nearest phantoms for each of the drawn coefficients [N, K], in the sampled pose, [N, S, S]."""
        assert self._pool is not None and back is not None, "the phantom's detail needs its alignment"
        low, images = _float(self._pool.low), torch.from_numpy(self._pool.images)
        weight = _float((1.0 + 0.15 * self.map.frequency.ravel()[self.map.low] ** 2) ** -0.5)
        nearest = torch.cdist(kept * weight, low * weight).topk(min(_NEAREST, len(low)), largest=False).indices
        chosen = nearest[torch.arange(len(kept)), draws.integers(nearest.shape[1], len(kept))]
        return warp(images[chosen][:, None], back)[:, 0]

    def _textured(self, image: Tensor, raw: Tensor, gain: Tensor) -> Tensor:
        return image + (raw * _smooth(gain, self.map.size)).sum(dim=1)

    def _split(self, image: Tensor, *, in_space: bool = True) -> Tensor:
        """Bands [N, B, S, S] of images [N, S, S], or of their coefficients."""
        spectrum = self._matrix @ image @ self._matrix.T if in_space else image
        return self._image(spectrum[:, None] * self._bands)

    def _image(self, spectrum: Tensor) -> Tensor:
        return self._matrix.T @ spectrum @ self._matrix


def appearance_model(plan: PublicPlan, arrays: Arrays) -> AppearanceModel:
    """The released model from arrays named `appearance/...`. Raises VerificationError when one is missing."""
    try:
        return AppearanceModel(plan, {name: arrays[f"appearance/{name}"] for name in ("mean", "factor")})
    except KeyError as error:
        raise VerificationError(f"the released array {error} is missing; ask the coordinator again") from None


_pool = lru_cache(maxsize=2)(aligned_pool)


def _float(value: np.ndarray) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


def _local(bands: Tensor) -> Tensor:
    """Root mean square [N, B, 4, 4] in each cell of [N, B, S, S]."""
    count, kinds, size, _ = bands.shape
    cell = size // GRID
    return bands.square().view(count, kinds, GRID, cell, GRID, cell).mean(dim=(3, 5)).sqrt()


def _smooth(cells: Tensor, size: int) -> Tensor:
    """Cells [N, B, 4, 4] as [N, B, S, S], bilinear between their centres."""
    return functional.interpolate(cells, size=(size, size), mode="bilinear", align_corners=False)

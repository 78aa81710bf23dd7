"""Images of a released appearance model: post-processing of its release and of public constants alone.

A feature vector is drawn of the component's Gaussian; the low frequencies are turned back into the sampled pose; each
band's texture is scaled to the sampled energies, cell by cell, with two corrections; exposure is put back; a left eye
is mirrored. WHERE things lie, how bright they are and how strong the texture is are the patients', under the guarantee;
the texture's own lines are nobody's: noise with the public power law's spectrum, or the bands of one of the three
phantom images whose aligned low frequencies are nearest to the drawn ones, or both in random shares. A photograph's
black frame is that phantom's.

All that is random is drawn for all rows first: how many of them are then computed at once is for memory to say.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_common.errors import VerificationError
from sfumato_common.generators.appearance.feature_map import FLOOR, GRID, POSE, AppearanceLayout, FeatureMap
from sfumato_common.generators.appearance.features import OPPONENT, aligned_pool, centre_of_map
from sfumato_common.generators.appearance.pose import inverse_of, matrices_of, warp
from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.rows import by_chunks
from sfumato_common.types import Arrays

_NEAREST = 3
_CORRECTIONS = 2
# public bounds of what is drawn: no pose beyond .4, no deviation beyond these, no energy above that of a full contrast
_POSE_BOUND, _LOG_DEVIATIONS, _LOG_ENERGIES = 0.4, (-3.0, 0.3), (float(np.log(FLOOR)) - 0.5, 1.0)
# what a source lacks in a cell is not amplified without bound
_PHANTOM_FLOOR, _NOISE_FLOOR, _RAW_FLOOR, _CORRECTION = 0.004, 0.005, 0.2, (0.3, 1.6)
_LEAST_FIELD = 0.35
_EMPTY = 1e-12  # mean square of a cell with nothing in it: far below every floor above
_SHARES = 1024  # steps of a random share


@dataclass(frozen=True, eq=False)
class _Pool:
    """The phantoms' numbers [P, d], exposed and aligned luminance [P, S, S], and fields [P, S, S]."""

    numbers: Tensor
    shown: Tensor
    field: Tensor

    def to(self, device: torch.device) -> _Pool:
        """The same pool on `device`."""
        return _Pool(self.numbers.to(device), self.shown.to(device), self.field.to(device))


class AppearanceModel:
    """Class-conditional Gaussian over features, and the synthesis of images [N, C, S, S] of them."""

    def __init__(self, plan: PublicPlan, arrays: Arrays) -> None:
        """`arrays` holds the released mean and factor of each component."""
        layout = AppearanceLayout.of(plan)
        self.map, self._detail = layout.map, stage_of(plan, AppearanceStage).detail
        self.mean, self._factor = (_float(arrays[name]) for name in ("mean", "factor"))
        self._centre, self._scale = _float(centre_of_map(self.map).numbers), _float(self.map.scale)
        self._matrix, self._bands = _float(dct_matrix(self.map.size)), torch.from_numpy(self.map.bands)
        self._law, self._opponent = _float(public_scale(self.map.size)), _float(np.linalg.inv(OPPONENT))
        self._pool = _pool(self.map) if self._detail != "noise" or self.map.mirrored else None

    def to(self, device: torch.device) -> AppearanceModel:
        """The same model on `device`; what is drawn is drawn on the CPU, and moved."""
        found = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor | _Pool):
                setattr(found, name, value.to(device))
        return found

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._matrix.device

    def sample(self, y: Tensor, draws: Draws) -> Tensor:
        """Images [N, C, S, S] in [-1, 1] for components [N]."""
        normal = draws.normal((len(y), self.map.features)).to(self.device)
        return by_chunks(self._images_of, y, normal, *self.drawn(len(y), draws))

    def synthesise(self, numbers: Tensor, draws: Draws) -> Tensor:
        """Images [N, C, S, S] of the map's numbers [N, d]; what is public in them is drawn from `draws`."""
        return by_chunks(self._images_of_numbers, numbers, *self.drawn(len(numbers), draws))

    def drawn(self, count: int, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Noise [N, S, S], the phantom's share of the detail [N], and which of the nearest phantoms it is [N]."""
        noise = draws.normal((count, self.map.size, self.map.size))
        share = torch.full((count,), float(self._detail == "phantom"), device=noise.device)
        chosen = torch.zeros(count, dtype=torch.int64, device=noise.device)
        if self._detail == "mixed":
            share = (draws.integers(_SHARES, count) + 0.5) / _SHARES
        if self._pool is not None:
            chosen = draws.integers(min(_NEAREST, len(self._pool.numbers)), count)
        return noise.to(self.device), share.to(self.device), chosen.to(self.device)

    def features_of(self, y: Tensor, normal: Tensor) -> Tensor:
        """Features [N, d] of components [N] and standard normal rows [N, d]."""
        features = torch.zeros_like(normal)
        for k in range(len(self.mean)):  # over all rows: an image does not depend on the others' components
            features = torch.where((y == k)[:, None], normal @ self._factor[k].T + self.mean[k], features)
        return features

    def numbers_of(self, features: Tensor) -> Tensor:
        """The map's numbers [N, d] of features [N, d]."""
        return features * self._scale + self._centre

    def images_of_features(self, features: Tensor, *drawn: Tensor) -> Tensor:
        """Images [N, C, S, S] of features [N, d], with what `drawn` gave."""
        return self._images_of_numbers(self.numbers_of(features), *drawn)

    def _images_of(self, y: Tensor, normal: Tensor, *drawn: Tensor) -> Tensor:
        return self.images_of_features(self.features_of(y, normal), *drawn)

    def _images_of_numbers(self, numbers: Tensor, noise: Tensor, share: Tensor, chosen: Tensor) -> Tensor:
        return self.images(numbers, noise, share, self.phantoms(numbers, chosen), self.poses(numbers))

    def poses(self, numbers: Tensor) -> Tensor:
        """Poses [N, 5] of numbers [N, d], within public bounds; [N, 0] where images are not aligned."""
        first = len(self.map.places) + self.map.energies + 2
        poses = numbers[:, first : first + (len(POSE) if self.map.aligned else 0)]
        return poses.clamp(-_POSE_BOUND, _POSE_BOUND)

    def images(self, numbers: Tensor, noise: Tensor, share: Tensor, phantoms: Tensor, poses: Tensor) -> Tensor:
        """Images [N, C, S, S] of numbers [N, d], with texture of `noise` and of a share of `phantoms` [N] of the pool.

        The phantoms, whose frame a fundus has, lie at `poses` [N, 5]. Differentiable in the numbers.
        """
        counts = [len(self.map.places), self.map.energies, self.map.parameters]
        low, energies, parameters = torch.split(numbers, counts, dim=1)
        planes, phantom, field = self._low_planes(low), None, None
        if self.map.aligned:
            planes = warp(planes, inverse_of(matrices_of(self.poses(numbers))))
            if self._pool is not None:
                back = inverse_of(matrices_of(poses))
                kinds = self._pool.shown, self._pool.field
                phantom, field = (warp(kind[phantoms][:, None], back, self.map.beyond)[:, 0] for kind in kinds)
        wanted = (energies.clamp(*_LOG_ENERGIES).exp() - FLOOR).clamp(min=1e-4)
        wanted = wanted.view(len(low), len(self._bands), GRID, GRID)
        luminance, chroma = self._with_texture(planes[:, 0], wanted, phantom, share, noise)[:, None], planes[:, 1:]
        deviation = parameters[:, 1].clamp(*_LOG_DEVIATIONS).exp()[:, None, None, None]
        luminance, chroma = luminance * deviation + parameters[:, 0, None, None, None], chroma * deviation
        if self.map.mirrored and field is not None:
            chroma = chroma / self._bled(field).clamp(min=_LEAST_FIELD)[:, None]
        planes = torch.cat([luminance, chroma], dim=1)
        if self.map.channels == 3:
            planes = torch.einsum("cp,nphw->nchw", self._opponent, planes)
        if self.map.mirrored and field is not None:
            planes = (planes + 1.0) * field[:, None] - 1.0
            planes = torch.where((parameters[:, -1] < 0.0)[:, None, None, None], planes.flip(-1), planes)
        return planes.clamp(-1.0, 1.0)

    def coarse(self, images: Tensor) -> Tensor:
        """Images [N, C, S, S] in the low frequencies alone, where they lie; linear."""
        kept = self._bands.any(dim=0).logical_not()
        return self._image(self._matrix @ images @ self._matrix.T * kept)

    def _low_planes(self, low: Tensor) -> Tensor:
        """Planes [N, C, S, S] of coefficients [N, K or K + 2 K/4]."""
        size, places = self.map.size, [self.map.low, self.map.chroma, self.map.chroma][: self.map.channels]
        planes, first = low.new_zeros(len(low), len(places), size * size), 0
        for plane, own in enumerate(places):
            planes[:, plane, torch.from_numpy(own).to(low.device)] = low[:, first : first + len(own)]
            first += len(own)
        return self._image(planes.view(len(low), len(places), size, size))

    def _bled(self, field: Tensor) -> Tensor:
        """Fields [N, S, S] in the few frequencies of chroma: by so much its colours fade towards the frame."""
        kept = field.new_zeros(self.map.size**2)
        kept[torch.from_numpy(self.map.chroma).to(field.device)] = 1.0
        return self._image(self._matrix @ field @ self._matrix.T * kept.view(self.map.size, -1))

    def _with_texture(
        self, low: Tensor, wanted: Tensor, phantom: Tensor | None, share: Tensor, noise: Tensor
    ) -> Tensor:
        """Luminance [N, S, S] with texture whose cells have the energies `wanted` [N, B, 4, 4]."""
        noise = self._normed(noise * self._law, _NOISE_FLOOR, in_space=False)
        raw = noise
        if phantom is not None:
            weight = share[:, None, None, None]
            raw = weight.sqrt() * self._normed(phantom, _PHANTOM_FLOOR) + (1.0 - weight).sqrt() * noise
        gain = wanted / _local(raw).clamp(min=_RAW_FLOOR)
        for _ in range(_CORRECTIONS):
            found = _local(self._split(self._textured(low, raw, gain)))
            gain = gain * (wanted / found.clamp(min=1e-4)).clamp(*_CORRECTION)
        image = self._textured(low, raw, gain)
        if phantom is None:
            return image
        # what the phantom lacks, black corners for instance, is filled with noise
        missing = (wanted.square() - _local(self._split(image)).square()).clamp(min=0.0).sqrt()
        return self._textured(image, noise, missing)

    def phantoms(self, numbers: Tensor, chosen: Tensor) -> Tensor:
        """Phantoms [N]: each the `chosen` [N] of those nearest to numbers [N, d]; all the first where there is no pool.

        Of fundi to the energies too, which tell of lesions: over the pool both count alike.
        """
        if (pool := self._pool) is None:
            return chosen
        weight = _float((1.0 + 0.15 * self.map.frequency.ravel()[self.map.low] ** 2) ** -0.5).to(numbers.device)
        kept, found = (part[:, : len(weight)] * weight for part in (numbers, pool.numbers))
        if self.map.mirrored:
            first = len(self.map.places)
            drawn, there = (part[:, first : first + self.map.energies] for part in (numbers, pool.numbers))
            alike = (found.var(dim=0).sum() / there.var(dim=0).sum()).sqrt()
            kept, found = torch.cat([kept, alike * drawn], 1), torch.cat([found, alike * there], 1)
        # not by products: their last bits hang on how many rows there are
        apart = torch.cdist(kept, found, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = apart.topk(min(_NEAREST, len(found)), largest=False).indices
        return nearest[torch.arange(len(numbers), device=chosen.device), chosen]

    def _normed(self, image: Tensor, floor: float, *, in_space: bool = True) -> Tensor:
        """Bands [N, B, S, S] of images, or of coefficients, of energy 1 in every cell where there is any."""
        bands = self._split(image, in_space=in_space)
        return bands / _smooth(_local(bands).clamp(min=floor), self.map.size)

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


@lru_cache(maxsize=2)
def _pool(feature_map: FeatureMap) -> _Pool:
    return _Pool(*(_float(part) for part in aligned_pool(feature_map)))


def _float(value: np.ndarray) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def _local(bands: Tensor) -> Tensor:
    """Root mean square [N, B, 4, 4] in each cell of [N, B, S, S]."""
    count, kinds, size, _ = bands.shape
    cell = size // GRID
    # the root has no slope at 0, where a cell is empty
    return bands.square().view(count, kinds, GRID, cell, GRID, cell).mean(dim=(3, 5)).clamp(min=_EMPTY).sqrt()


def _smooth(cells: Tensor, size: int) -> Tensor:
    """Cells [N, B, 4, 4] as [N, B, S, S], bilinear between their centres."""
    return functional.interpolate(cells, size=(size, size), mode="bilinear", align_corners=False)

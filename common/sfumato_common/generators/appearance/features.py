"""Features of images, by a deterministic public map of ONE image each, and what centres them.

Steps: planes (luminance and two chroma of colour); exposure, taken off; of a fundus its side, left eyes are mirrored;
pose against the template, by which the planes are warped; low DCT coefficients of those; log energies of the luminance
before the warp, because interpolation blurs. A vector that is not finite becomes zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sfumato_common.generators.appearance.feature_map import CONTRAST, FLOOR, GRID, POSE, FeatureMap
from sfumato_common.generators.appearance.phantoms import phantom_pool
from sfumato_common.generators.appearance.pose import exposure_of, matrices_of, pose_of, side_of, thumbnails, warp
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.memory import rows_at_once
from sfumato_common.types import ByteImages, to_unit_range

# rows: luminance, then red beside blue, and green beside both
OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, -1 / 2], [-1 / 4, 1 / 2, -1 / 4]])
_TYPICAL_LOG_DEVIATION = -0.9
# luminance, in units of the range, at which a phantom's field begins and at which it is reached: all else is its frame
_FIELD = (0.02, 0.08)


@dataclass(frozen=True, eq=False)
class Centre:
    """Public constants of a map: `template` [24, 24], exposed; the numbers' centre [d], a chest's with low ones 0."""

    template: Float64
    numbers: Float64


@lru_cache(maxsize=4)
def centre_of_map(feature_map: FeatureMap) -> Centre:
    """Of the phantom pool where images are aligned to it; else what the power law expects."""
    low = np.zeros(len(feature_map.places))
    if not feature_map.aligned:
        power = [float((public_scale(feature_map.size)[band] ** 2).sum()) for band in feature_map.bands]
        rms = np.repeat(np.sqrt(power) * CONTRAST / feature_map.size, GRID**2)
        numbers = np.concatenate([low, np.log(rms + FLOOR), [0.0, _TYPICAL_LOG_DEVIATION]])
        return Centre(np.zeros((0, 0)), numbers)
    template, numbers = _numbers_of_pool(feature_map)
    means, rest = numbers.mean(axis=0), feature_map.energies + feature_map.parameters
    if feature_map.mirrored:
        means[-1] = 0.0  # the pool shows right eyes; patients have both
        return Centre(template, means)
    return Centre(template, np.concatenate([low, means[-rest:]]))


def features_of(feature_map: FeatureMap, images: ByteImages) -> Float64:
    """Features [M, d], not clipped, of uint8 or uint16 images [M, S, S] or [M, S, S, 3]."""
    if not len(images):
        return np.zeros((0, feature_map.features))
    rows = _rows(feature_map, len(images))
    some = (planes_of(to_unit_range(images[first : first + rows])) for first in range(0, len(images), rows))
    return _features(feature_map, some)


def features_of_pixels(feature_map: FeatureMap, pixels: Float64) -> Float64:
    """Features [N, d] of pixels [N, C, S, S] in [-1, 1], N > 0."""
    return _features(feature_map, iter(_chunks(feature_map, planes_of(pixels))))


def _features(feature_map: FeatureMap, planes: Iterator[Float64]) -> Float64:
    centre = centre_of_map(feature_map)
    numbers = [_parts(feature_map, centre.template, some) for some in planes]
    features = (np.concatenate(numbers) - centre.numbers) / feature_map.scale
    return np.where(np.isfinite(features).all(axis=1, keepdims=True), features, 0.0)


def aligned_pool(feature_map: FeatureMap) -> tuple[Float64, Float64, Float64]:
    """The pool's numbers [P, d], its exposed, aligned luminance [P, S, S], and where its field is [P, S, S].

    The field is 1 where a phantom shows anything, and 0 in a photograph's black frame.
    """
    planes, numbers = _planes_of_pool(feature_map), _numbers_of_pool(feature_map)[1]
    parameters = feature_map.split(numbers)[2]
    mean, deviation = (column[:, None, None] for column in parameters.T[:2])
    exposed = (planes[:, 0] - mean) / np.exp(deviation)
    if feature_map.mirrored:
        exposed = np.where(parameters[:, -1, None, None] < 0.0, exposed[..., ::-1], exposed)
    matrices = matrices_of(torch.from_numpy(parameters[:, 2 : 2 + len(POSE)].copy()))
    shown = warp(torch.from_numpy(exposed[:, None].copy()), matrices, feature_map.beyond).numpy()[:, 0]
    light = (shown * np.exp(deviation) + mean + 1.0) / 2.0
    field = np.clip((light - _FIELD[0]) / (_FIELD[1] - _FIELD[0]), 0.0, 1.0)
    # what lies beyond an image's edge is looked up at the edge
    field[:, [0, -1]] = field[:, :, [0, -1]] = 0.0
    return numbers, shown, field


@lru_cache(maxsize=2)
def _numbers_of_pool(feature_map: FeatureMap) -> tuple[Float64, Float64]:
    """The template [24, 24], which is the pool's own mean, and the pool's numbers [P, d] when aligned to it."""
    pool = _planes_of_pool(feature_map)
    mean, deviation = exposure_of(pool[:, 0])
    exposed = (pool[:, 0] - mean[:, None, None]) / np.exp(deviation)[:, None, None]
    template = thumbnails(exposed.mean(axis=0)[None])[0]
    return template, np.concatenate([_parts(feature_map, template, some) for some in _chunks(feature_map, pool)])


def _planes_of_pool(feature_map: FeatureMap) -> Float64:
    pool = phantom_pool(feature_map.alignment, feature_map.size, feature_map.phantoms)
    planes = planes_of(to_unit_range(pool))
    # films are grey: in a study in colour their chroma is zero
    return np.pad(planes, ((0, 0), (0, feature_map.channels - planes.shape[1]), (0, 0), (0, 0)))


def planes_of(pixels: npt.NDArray[np.floating[Any]]) -> Float64:
    """Planes [M, C, S, S] of pixels [M, C, S, S] in [-1, 1]: grey as it is, or luminance and two chroma planes."""
    planes: Float64 = pixels.astype(np.float64)
    return planes if planes.shape[1] == 1 else np.einsum("pc,nchw->nphw", OPPONENT, planes)


def _chunks(feature_map: FeatureMap, planes: Float64) -> list[Float64]:
    rows = _rows(feature_map, len(planes))
    return [planes[first : first + rows] for first in range(0, len(planes), rows)]


def _rows(feature_map: FeatureMap, images: int) -> int:
    """Images of a chunk: their planes four times (as they are, exposed, warped, transformed), and a band's steps."""
    return rows_at_once(8 * feature_map.size**2 * (4 * feature_map.channels + 5), images)


def _parts(feature_map: FeatureMap, template: Float64, planes: Float64) -> Float64:
    """All numbers [N, d] of planes [N, C, S, S], neither centred nor scaled."""
    sound = np.asarray(np.isfinite(planes).all(axis=(1, 2, 3)))
    # bilinear look-ups read beyond their memory where a coordinate is not a number
    planes = np.where(sound[:, None, None, None], planes, 0.0)
    mean, deviation = exposure_of(planes[:, 0])
    exposed = planes / np.exp(deviation)[:, None, None, None]
    exposed[:, 0] -= (mean / np.exp(deviation))[:, None, None]
    parameters, side = [mean[:, None], deviation[:, None]], np.ones(len(planes))
    if feature_map.mirrored:
        side = side_of(thumbnails(exposed[:, 0]), template)
        exposed = np.where(side[:, None, None, None] < 0.0, exposed[..., ::-1], exposed)
    aligned = exposed
    if feature_map.aligned:
        pose = pose_of(thumbnails(exposed[:, 0]), template)
        aligned = warp(torch.from_numpy(exposed), matrices_of(torch.from_numpy(pose))).numpy()
        parameters += [pose, side[:, None]] if feature_map.mirrored else [pose]
    matrix = dct_matrix(feature_map.size)
    low = (matrix @ aligned @ matrix.T).reshape(*aligned.shape[:2], -1)
    kept = [low[:, 0, feature_map.low], *(low[:, plane, feature_map.chroma] for plane in range(1, planes.shape[1]))]
    spectrum = matrix @ exposed[:, 0] @ matrix.T
    energies = [np.log(_local(matrix.T @ np.where(band, spectrum, 0.0) @ matrix) + FLOOR) for band in feature_map.bands]
    numbers = np.concatenate([*kept, *(item.reshape(len(planes), -1) for item in energies), *parameters], axis=1)
    return np.where(sound[:, None], numbers, np.nan)


def _local(band: Float64) -> Float64:
    """Root mean square [N, 4, 4] in each cell of [N, S, S]."""
    cell = band.shape[1] // GRID
    return np.asarray(np.sqrt(np.square(band).reshape(len(band), GRID, cell, GRID, cell).mean(axis=(2, 4))))

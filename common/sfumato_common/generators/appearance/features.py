"""Features of images, by a deterministic public map of ONE image each, and what centres them.

Steps: planes (luminance and two chroma of colour); exposure, taken off; pose against the template, by which the planes
are warped; low DCT coefficients of those; log energies of the luminance before the warp, because interpolation blurs.
A vector that is not finite becomes zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from sfumato_common.generators.appearance.feature_map import CONTRAST, FLOOR, GRID, FeatureMap
from sfumato_common.generators.appearance.phantoms import phantom_pool
from sfumato_common.generators.appearance.pose import exposure_of, matrices_of, pose_of, thumbnails, warp
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.types import ByteImages, to_unit_range

# rows: luminance, then red beside blue, and green beside both
OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, -1 / 2], [-1 / 4, 1 / 2, -1 / 4]])
_TYPICAL_LOG_DEVIATION = -0.9
_PIXELS = 2**21  # of a chunk


@dataclass(frozen=True, eq=False)
class Centre:
    """Public constants of a map: `template` [24, 24], exposed; the numbers' centre [d], of which low ones are 0."""

    template: Float64
    numbers: Float64


@dataclass(frozen=True, eq=False)
class AlignedPool:
    """The phantom pool on a map: its centre, low coefficients [P, K], and exposed, aligned luminance [P, S, S]."""

    centre: Centre
    low: Float64
    images: npt.NDArray[np.float32]


@lru_cache(maxsize=4)
def centre_of_map(feature_map: FeatureMap) -> Centre:
    """Of the phantom pool where images are aligned to it; else what the power law expects."""
    if feature_map.aligned:
        return aligned_pool(feature_map).centre
    power = [float((public_scale(feature_map.size)[band] ** 2).sum()) for band in feature_map.bands]
    rms = np.repeat(np.sqrt(power) * CONTRAST / feature_map.size, GRID**2)
    low = np.zeros(len(feature_map.places))
    return Centre(np.zeros((0, 0)), np.concatenate([low, np.log(rms + FLOOR), [0.0, _TYPICAL_LOG_DEVIATION]]))


def aligned_pool(feature_map: FeatureMap) -> AlignedPool:
    """The pool, aligned to the template that is its own mean. Large: kept by whoever needs more than the centre."""
    pool = to_unit_range(phantom_pool(feature_map.size, feature_map.phantoms)).astype(np.float64)
    mean, deviation = exposure_of(pool[:, 0])
    exposed = (pool[:, 0] - mean[:, None, None]) / np.exp(deviation)[:, None, None]
    template = thumbnails(exposed.mean(axis=0)[None])[0]
    found, images = list[Float64](), list[npt.NDArray[np.float32]]()
    for some in _chunks(feature_map, pool):
        own, aligned = _parts(feature_map, template, some)
        found.append(own)
        images.append(aligned[:, 0].astype(np.float32))
    numbers, rest = np.concatenate(found), feature_map.energies + feature_map.parameters
    centre = np.concatenate([np.zeros(len(feature_map.places)), numbers.mean(axis=0)[-rest:]])
    return AlignedPool(Centre(template, centre), numbers[:, : feature_map.coefficients], np.concatenate(images))


def features_of(feature_map: FeatureMap, images: ByteImages) -> Float64:
    """Features [M, d], not clipped, of uint8 or uint16 images [M, S, S] or [M, S, S, 3]."""
    if not len(images):
        return np.zeros((0, feature_map.features))
    centre, rows = centre_of_map(feature_map), _rows(feature_map)
    some = (images[first : first + rows] for first in range(0, len(images), rows))
    numbers = [_parts(feature_map, centre.template, planes_of(pixels))[0] for pixels in some]
    features = (np.concatenate(numbers) - centre.numbers) / feature_map.scale
    return np.where(np.isfinite(features).all(axis=1, keepdims=True), features, 0.0)


def planes_of(images: ByteImages) -> Float64:
    """Planes [M, C, S, S]: grey as it is, or luminance and two chroma planes, in [-1, 1]."""
    pixels = to_unit_range(images).astype(np.float64)
    return pixels if pixels.shape[1] == 1 else np.einsum("pc,nchw->nphw", OPPONENT, pixels)


def _chunks(feature_map: FeatureMap, planes: Float64) -> list[Float64]:
    rows = _rows(feature_map)
    return [planes[first : first + rows] for first in range(0, len(planes), rows)]


def _rows(feature_map: FeatureMap) -> int:
    """Images of a chunk: what its planes and one band take in memory is the same at every size."""
    return max(1, _PIXELS // feature_map.size**2)


def _parts(feature_map: FeatureMap, template: Float64, planes: Float64) -> tuple[Float64, Float64]:
    """All numbers [N, d] of planes [N, C, S, S], neither centred nor scaled; and the planes exposed and aligned."""
    sound = np.asarray(np.isfinite(planes).all(axis=(1, 2, 3)))
    # bilinear look-ups read beyond their memory where a coordinate is not a number
    planes = np.where(sound[:, None, None, None], planes, 0.0)
    mean, deviation = exposure_of(planes[:, 0])
    exposed = planes / np.exp(deviation)[:, None, None, None]
    exposed[:, 0] -= (mean / np.exp(deviation))[:, None, None]
    parameters, aligned = [mean[:, None], deviation[:, None]], exposed
    if feature_map.aligned:
        pose = pose_of(thumbnails(exposed[:, 0]), template)
        aligned = warp(torch.from_numpy(exposed), matrices_of(torch.from_numpy(pose))).numpy()
        parameters.append(pose)
    matrix = dct_matrix(feature_map.size)
    low = (matrix @ aligned @ matrix.T).reshape(*aligned.shape[:2], -1)
    kept = [low[:, 0, feature_map.low], *(low[:, plane, feature_map.chroma] for plane in range(1, planes.shape[1]))]
    spectrum = matrix @ exposed[:, 0] @ matrix.T
    energies = [np.log(_local(matrix.T @ np.where(band, spectrum, 0.0) @ matrix) + FLOOR) for band in feature_map.bands]
    numbers = np.concatenate([*kept, *(item.reshape(len(planes), -1) for item in energies), *parameters], axis=1)
    return np.where(sound[:, None], numbers, np.nan), aligned


def _local(band: Float64) -> Float64:
    """Root mean square [N, 4, 4] in each cell of [N, S, S]."""
    cell = band.shape[1] // GRID
    return np.asarray(np.sqrt(np.square(band).reshape(len(band), GRID, cell, GRID, cell).mean(axis=(2, 4))))

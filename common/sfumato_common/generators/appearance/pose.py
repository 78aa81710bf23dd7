"""Exposure and pose of an image, by a public map: no number of one image depends on another image.

The optimiser takes batches of one fixed, public shape and a fixed number of steps, and couples no two rows of a batch.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_common.generators.appearance.feature_map import POSE
from sfumato_common.generators.spectral.moment_layout import Float64

SMALLEST_DEVIATION = 0.05
THUMBNAIL = 24
BATCH = 128
_STEPS, _PENALTY, _CLAMP = 25, 0.03, 3.0
# Adam's moments, and its step: it falls from _STEP towards _LAST
_BETAS, _STEP, _LAST = (0.8, 0.95), 0.25, 0.02


def exposure_of(planes: Float64) -> tuple[Float64, Float64]:
    """Mean [N] and log deviation [N] of planes [N, S, S] over their central 7/8."""
    edge = planes.shape[1] // 16
    centre = planes[:, edge : planes.shape[1] - edge, edge : planes.shape[1] - edge].reshape(len(planes), -1)
    return centre.mean(axis=1), np.log(np.maximum(centre.std(axis=1), SMALLEST_DEVIATION))


def thumbnails(planes: Float64) -> Float64:
    """Planes [N, S, S] averaged down, or up, to [N, 24, 24], by triangles as wide as a pixel of the coarser grid."""
    size = planes.shape[1]
    step = size / THUMBNAIL
    centres, places = (np.arange(THUMBNAIL) + 0.5) * step, np.arange(size) + 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(centres[:, None] - places) / max(step, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights @ planes @ weights.T)


def pose_of(thumbs: Float64, template: Float64) -> Float64:
    """Pose [N, 5] that lays thumbnails [N, 24, 24] onto a template [24, 24]: Adam from 0 on the weighted squares."""
    found = []
    for first in range(0, len(thumbs), BATCH):
        some = np.zeros((BATCH, THUMBNAIL, THUMBNAIL), dtype=np.float32)
        count = len(thumbs[first : first + BATCH])
        some[:count] = thumbs[first : first + BATCH]
        found.append(_descend(torch.from_numpy(some)[:, None], torch.from_numpy(template.astype(np.float32)))[:count])
    return torch.cat(found).double().numpy() if found else np.zeros((0, len(POSE)))


def side_of(thumbs: Float64, template: Float64) -> Float64:
    """1 [N] where thumbnails [N, 24, 24] are more like the template than like its mirror image, else -1."""
    odd = (template - template[:, ::-1]) * np.hanning(THUMBNAIL + 2)[1:-1, None]
    return np.where((thumbs * odd).sum(axis=(1, 2)) >= 0.0, 1.0, -1.0)


def _descend(images: Tensor, template: Tensor) -> Tensor:
    device = images.device
    deviations = torch.tensor(POSE, device=device)
    window = torch.hann_window(THUMBNAIL + 2, periodic=False, device=device)[1:-1]
    weight = (window[:, None] * window).sqrt()
    weight = weight / weight.sum()
    pose, mean, square = (torch.zeros(len(images), len(POSE), device=device) for _ in range(3))
    for step in range(_STEPS):
        with torch.enable_grad():
            variable = pose.detach().requires_grad_()
            off = warp(images, matrices_of(variable * deviations))[:, 0] - template
            loss = (weight * off.square()).sum(dim=(1, 2)) + _PENALTY * variable.square().sum(dim=1)
            (gradient,) = torch.autograd.grad(loss.sum(), variable)
        mean = _BETAS[0] * mean + (1.0 - _BETAS[0]) * gradient
        square = _BETAS[1] * square + (1.0 - _BETAS[1]) * gradient.square()
        rate = _STEP * (1.0 - step / _STEPS) + _LAST
        first, second = mean / (1.0 - _BETAS[0] ** (step + 1)), square / (1.0 - _BETAS[1] ** (step + 1))
        # a coordinate that is not a number would be read from beyond the image
        pose = torch.nan_to_num(pose - rate * first / (second.sqrt() + 1e-6)).clamp(-_CLAMP, _CLAMP)
    return pose * deviations


def matrices_of(pose: Tensor) -> Tensor:
    """Affine maps [N, 2, 3] from the template's to an image's coordinates in [-1, 1], of poses [N, 5]."""
    x, y, wide, high, turn = pose.unbind(1)
    wide, high, cosine, sine = wide.exp(), high.exp(), turn.cos(), turn.sin()
    rows = [torch.stack([wide * cosine, -high * sine, x], 1), torch.stack([wide * sine, high * cosine, y], 1)]
    return torch.stack(rows, 1)


def inverse_of(matrices: Tensor) -> Tensor:
    """The maps back, [N, 2, 3]."""
    (a, b, x), (c, d, y) = matrices[:, 0].unbind(1), matrices[:, 1].unbind(1)
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    rows = [torch.stack([a, b, -(a * x + b * y)], 1), torch.stack([c, d, -(c * x + d * y)], 1)]
    return torch.stack(rows, 1)


def warp(planes: Tensor, matrices: Tensor, beyond: Literal["border", "reflection"] = "border") -> Tensor:
    """Planes [N, C, S, S] looked up at each pixel's mapped place: bilinear, outside the border or what is inside it."""
    size = planes.shape[-1]
    line = (torch.arange(size, dtype=planes.dtype, device=planes.device) * 2.0 + 1.0) / size - 1.0
    along, down = line[None, None, :], line[None, :, None]
    m = matrices[:, :, :, None, None]
    places = [m[:, axis, 0] * along + m[:, axis, 1] * down + m[:, axis, 2] for axis in (0, 1)]
    return functional.grid_sample(planes, torch.stack(places, -1), padding_mode=beyond, align_corners=False)

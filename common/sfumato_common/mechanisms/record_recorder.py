"""Mechanisms on single records and small groups of them, counted where the noise is drawn.

What anonymisers release formally passes here: clipping and noise are applied together, so that no method can noise what
it forgot to clip. Rows are clipped each on its own, never by a norm of the batch.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from sfumato_common.accounting.events import (
    KAverageGaussian,
    LocalGaussian,
    LocalLaplace,
    Mechanism,
    RandomisedResponse,
)
from sfumato_common.mechanisms.grid import gaussian_release, laplace_release
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.types import FloatArray

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Clip = Literal["l1", "elementwise", "l2"]
# Rows are clipped in float64, and then a little more, so that no rounding leaves one outside its ball.
_INSIDE = 1.0 - 2.0**-40
# A label is never told more surely: lies rarer than 1e-8 are too few of the 2^52 uniforms to have their stated odds.
_SUREST = 20.0


class RecordRecorder:
    """The one way from codes of records to noised codes; `executed` lists what ran, in order."""

    def __init__(self, noise: NoiseSource) -> None:
        self._noise = noise
        self.executed: list[Mechanism] = []

    def laplace(self, rows: FloatArray, radius: float, epsilon: float, clip: Clip) -> Float64:
        """Rows [N, D], one a patient, clipped by L1 norm or elementwise, with Laplace noise for `epsilon` in total."""
        assert clip in ("l1", "elementwise"), "Laplace noise is scaled to an L1 diameter"
        diameter = 2.0 * radius * (rows.shape[1] if clip == "elementwise" else 1)
        self.executed.append(LocalLaplace(epsilon))
        return laplace_release(clipped(rows, radius, clip), diameter, epsilon, self._noise)

    def gaussian(self, rows: FloatArray, radius: float, noise_multiplier: float) -> Float64:
        """Rows [N, D], one a patient, clipped to L2 norm `radius`; noise of noise_multiplier x 2 radius."""
        self.executed.append(LocalGaussian(noise_multiplier))
        return gaussian_release(clipped(rows, radius, "l2"), 2.0 * radius, noise_multiplier, self._noise)

    def k_average(self, members: FloatArray, radius: float, noise_multiplier: float) -> Float64:
        """Means [G, D] of groups [G, k, D] of patients' codes clipped to `radius`; noise_multiplier x 2 radius / k."""
        groups, k, width = members.shape
        self.executed.append(KAverageGaussian(noise_multiplier, k))
        inside = clipped(members.reshape(-1, width), radius, "l2").reshape(groups, k, width)
        return gaussian_release(inside.mean(axis=1), 2.0 * radius / k, noise_multiplier, self._noise)

    def randomised_response(self, labels: Labels, categories: int, epsilon: float) -> Labels:
        """Labels [N], each kept with odds e^epsilon to 1 against every other one (Warner 1965; Kairouz et al. 2014)."""
        assert labels.size == 0 or (labels.min() >= 0 and labels.max() < categories), "labels are categories"
        self.executed.append(RandomisedResponse(categories, epsilon))
        uniform = categories / (np.exp(min(epsilon, _SUREST)) + categories - 1.0)
        drawn = np.floor(self._noise.uniform(labels.shape) * categories).astype(np.int64)
        return np.asarray(np.where(self._noise.uniform(labels.shape) < uniform, drawn, labels))


def clipped(rows: FloatArray, radius: float, clip: Clip) -> Float64:
    """Rows [N, D], each on its own: scaled into the L1 or L2 ball of `radius`, or cut to [-radius, radius].

    A value that is not finite counts as 0: one record must not spoil, or reveal, anything.
    """
    # rows that lie in one piece are summed pairwise, whose error stays far below what _INSIDE leaves
    values = np.ascontiguousarray(np.nan_to_num(np.asarray(rows, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    if clip == "elementwise":
        return np.asarray(np.clip(values, -radius, radius) * _INSIDE)
    # over its largest value, or the radius, a row has a norm that neither overflows nor vanishes
    unit = values / np.maximum(np.abs(values).max(axis=1, keepdims=True, initial=0.0), radius)
    norms = np.linalg.norm(unit, ord=1 if clip == "l1" else 2, axis=1, keepdims=True)
    return np.asarray(unit * (radius / np.maximum(norms, 1.0) * _INSIDE))

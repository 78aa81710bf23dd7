"""Clipping of single records: each row on its own, never by a norm of the batch, so that nobody moves another's row."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from sfumato_common.types import FloatArray

Float64 = npt.NDArray[np.float64]
Clip = Literal["l1", "elementwise", "l2"]
# Rows are clipped in float64, and then a little more, so that no rounding leaves one outside its ball.
_INSIDE = 1.0 - 2.0**-40


def clip_rows(rows: FloatArray, radius: float, clip: Clip) -> Float64:
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

"""Profiles and shapes on a pixel grid that the drawing is made of; float32 throughout.

Most are one-dimensional and broadcast over the frame, so that an image costs some forty passes over its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato_common.phantom.anatomy import Pose
from sfumato_common.types import AnyArray

Field = npt.NDArray[np.float32]
_MARGIN = 1.10  # the canvas is drawn a little larger than the frame, so that moving the patient uncovers no edge


@dataclass(frozen=True)
class Canvas:
    """Upright pixel grid: x [1, W] and y [H, 1] in anatomical units."""

    x: Field
    y: Field

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y.shape[0], self.x.shape[1]


def make_canvas(rows: int, columns: int, zoom: float) -> Canvas:
    """Grid with square pixels whose centre is (0, 0), covering the frame of `rows` x `columns` and a margin."""
    height, width = round(rows * _MARGIN), round(columns * _MARGIN)
    unit = 2.0 / (rows * zoom)
    x = ((np.arange(width) - (width - 1) / 2) * unit).astype(np.float32)
    y = ((np.arange(height) - (height - 1) / 2) * unit).astype(np.float32)
    return Canvas(x[None, :], y[:, None])


def sides(canvas: Canvas, pair: tuple[float, float]) -> Field:
    """[1, W]: the left or the right member of `pair`, by the side of the midline."""
    return np.where(canvas.x < 0, np.float32(pair[0]), np.float32(pair[1])).astype(np.float32)


def step(value: AnyArray) -> Field:
    """Smooth step: 0 below 0, 1 above 1, 3t^2 - 2t^3 between; float32 whatever comes in."""
    t = np.minimum(np.maximum(value, 0.0), 1.0, dtype=np.float32)
    out: Field = t * np.float32(-2.0)
    out += 3.0
    out *= t
    out *= t
    return out


def add_ball(
    field: Field,
    canvas: Canvas,
    amount: float,
    middle: tuple[float, float],
    half: tuple[float, float],
    tilt: float = 0.0,
) -> None:
    """Add `amount` x the thickness (0..1) of an ellipsoid along the beam: sqrt(1 - r^2) inside; works in its window."""
    reach = max(half)
    left, right = np.searchsorted(canvas.x[0], (middle[0] - reach, middle[0] + reach))
    top, bottom = np.searchsorted(canvas.y[:, 0], (middle[1] - reach, middle[1] + reach))
    x, y = canvas.x[:, left:right] - np.float32(middle[0]), canvas.y[top:bottom] - np.float32(middle[1])
    c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    across, along = (c * x + s * y) * np.float32(1 / half[0]), (c * y - s * x) * np.float32(1 / half[1])
    across *= across
    along *= along
    across += along
    inside = np.sqrt(np.maximum(1.0 - across, 0.0))
    inside *= np.float32(amount)
    field[top:bottom, left:right] += inside


def tube(phase: Field, half_width: float) -> Field:
    """Profile of hollow rods that lie one per unit of `phase`: a flat top with brighter rims."""
    distance: Field = np.abs(phase - np.floor(phase) - np.float32(0.5))
    inside = np.minimum(np.maximum((np.float32(half_width) - distance) * np.float32(1.0 / 0.09), 0.0), 1.0)
    distance *= np.float32(0.5 / half_width)
    distance += 0.5
    distance *= inside
    return distance


def fluff(rng: np.random.Generator, canvas: Canvas, cells: int = 22) -> Field:
    """Smooth random texture [H, W] of unit variance or so: bicubic enlargement of coarse white noise."""
    height, width = canvas.shape
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def expose(field: Field, pose: Pose, rows: int, columns: int) -> Field:
    """Move the patient in the field (rotation, zoom, shift; bilinear) and cut the frame [rows, columns] out."""
    height, width = field.shape
    c, s = np.cos(pose.rotation) / pose.zoom, np.sin(pose.rotation) / pose.zoom
    middle_x, middle_y = (columns - 1) / 2 + pose.shift_x * rows / 2, (rows - 1) / 2 + pose.shift_y * rows / 2
    matrix = (
        c,
        s,
        (width - 1) / 2 - c * middle_x - s * middle_y,
        -s,
        c,
        (height - 1) / 2 + s * middle_x - c * middle_y,
    )
    moved = Image.fromarray(field).transform((columns, rows), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(moved, dtype=np.float32)

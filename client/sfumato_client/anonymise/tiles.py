"""Contact sheets of what a method started from and what it made, for the steward: never part of a package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfumato_client.anonymise.contract import Job
from sfumato_common.files import write_atomic
from sfumato_common.imaging import encode_png
from sfumato_common.study.release import AnyItem
from sfumato_common.types import ByteImages

MOST_ROWS = 8  # groups or walks on a sheet
Tile = ByteImages | None


def tile_rows(rows: Sequence[Sequence[Tile]]) -> ByteImages:
    """Rows of images [S, S(, 3)] of one form as one square picture; black where a row is short or a tile is None."""
    one = next(tile for row in rows for tile in row if tile is not None)
    size, side = one.shape[0], max(len(rows), *(len(row) for row in rows))
    picture = np.zeros((side * size, side * size, *one.shape[2:]), dtype=one.dtype)
    for down, row in enumerate(rows):
        for right, tile in enumerate(row):
            if tile is not None:
                picture[down * size : (down + 1) * size, right * size : (right + 1) * size] = tile
    return picture


def write_sheet(job: Job[AnyItem], rows: Sequence[Sequence[Tile]]) -> None:
    """The rows as <method>-<model>.png in the steward's folder, readable by its owner alone."""
    assert job.steward_folder is not None, "a sheet is made only where it may be left"
    write_atomic(
        job.steward_folder / f"{job.item.method}-{job.item.model}.png", encode_png(tile_rows(rows)), mode=0o600
    )

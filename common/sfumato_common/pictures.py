"""Pictures for people: equal tiles side by side, with gaps, at their own size or enlarged, as PNG bytes or a data URI.

What proves or is hashed is written by `imaging.encode_png`; nothing here is.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sfumato_common.types import AnyArray, ByteImages, to_eight_bits

Tile = ByteImages | None
COLUMNS = 8
GAP = 2
GAP_GREY = 128
# each pixel becomes a square of whole screen pixels, so that no browser has to guess between them
LEAST_WIDTH = 1000
_GRID_WIDTH = 500


def data_uri(pixels: ByteImages) -> str:
    """uint8 [H, W] or [H, W, 3] as a PNG data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def mosaic(
    rows: Sequence[Sequence[Tile]],
    *,
    columns: int = COLUMNS,
    gap: int = GAP,
    ground: int = GAP_GREY,
    least_width: int = LEAST_WIDTH,
) -> ByteImages:
    """Rows of equal square tiles [S, S(, 3)] of 8 or 16 bits on a grey `ground`, enlarged -> uint8 [H, W(, 3)].

    A tile that is None, and what a short row lacks, is left as ground.
    """
    one = next(tile for row in rows for tile in row if tile is not None)
    side, step = one.shape[0], one.shape[0] + gap
    canvas = np.full((len(rows) * step - gap, columns * step - gap, *one.shape[2:]), ground, dtype=np.uint8)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            if tile is not None:
                canvas[down * step : down * step + side, across * step : across * step + side] = to_eight_bits(tile)
    factor = max(1, math.ceil(least_width / canvas.shape[1]))
    return canvas.repeat(factor, axis=0).repeat(factor, axis=1)


def grid(images: AnyArray, columns: int) -> ByteImages:
    """Images [R * columns, S, S(, 3)] of 8 or 16 bits as one picture of R rows, for a screen."""
    tiles = [list(images[at : at + columns]) for at in range(0, len(images), columns)]
    return mosaic(tiles, columns=columns, least_width=_GRID_WIDTH)


def png(pixels: ByteImages) -> bytes:
    """PNG bytes of any uint8 [H, W] or [H, W, 3]."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()

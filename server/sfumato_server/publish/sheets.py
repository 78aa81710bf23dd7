"""Contact sheets: one mosaic per site and class, a band of rows per source; the first images by their random names."""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sfumato_common.config.plan import Plan
from sfumato_common.package import decode_png
from sfumato_common.types import ByteImages, to_eight_bits
from sfumato_server.pool import Pool, PoolItem

COLUMNS = 8
GAP = 2
GAP_GREY = 128
# each pixel becomes a square of whole screen pixels, so that no browser has to guess between them
LEAST_WIDTH = 1000


@dataclass(frozen=True)
class Sheet:
    """One mosaic as a data URI, its size in pixels, and the sources of its bands from top to bottom."""

    site: str
    label: str
    uri: str
    width: int
    height: int
    sources: tuple[str, ...]
    shown: int
    of: int


def contact_sheets(pool: Pool, plan: Plan) -> list[Sheet]:
    """Sheets by site, then by the plan's order of labels and releases; deterministic, nothing is picked by eye."""
    groups: dict[tuple[str, str], dict[tuple[str, str], list[PoolItem]]] = defaultdict(lambda: defaultdict(list))
    for item in pool.items:
        groups[item.site, item.label][item.method, item.model].append(item)
    sheets = []
    for site in sorted(pool.provenance):
        for label in plan.labels:
            own = groups[site, label]
            bands = [(source_name(*source), own[source]) for source in plan.sources if own.get(source)]
            if bands:
                sheets.append(_sheet(site, label, bands))
    return sheets


def source_name(method: str, model: str) -> str:
    """What people are told an image comes from: the model it was sampled from, or the method and its model."""
    return model if method == "dp-sampling" else f"{method} ({model})"


def data_uri(pixels: ByteImages) -> str:
    """uint8 [H, W] or [H, W, 3] as a PNG data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def mosaic(
    rows: Sequence[Sequence[ByteImages]], *, columns: int = COLUMNS, least_width: int = LEAST_WIDTH
) -> ByteImages:
    """Rows of equal square tiles [S, S(, 3)] of 8 or 16 bits with grey gaps, enlarged -> uint8 [H, W(, 3)]."""
    side, channels = rows[0][0].shape[0], rows[0][0].shape[2:]
    step = side + GAP
    canvas = np.full((len(rows) * step - GAP, columns * step - GAP, *channels), GAP_GREY, dtype=np.uint8)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            canvas[down * step : down * step + side, across * step : across * step + side] = to_eight_bits(tile)
    factor = math.ceil(least_width / canvas.shape[1])
    return canvas.repeat(factor, axis=0).repeat(factor, axis=1)


def _sheet(site: str, label: str, bands: Sequence[tuple[str, list[PoolItem]]]) -> Sheet:
    longest = max(len(items) for _, items in bands)
    depth = min(max(1, round(3 / len(bands))), math.ceil(longest / COLUMNS))
    rows: list[list[ByteImages]] = []
    for _, items in bands:
        tiles = [decode_png(item.png) for item in items[: depth * COLUMNS]]
        # a band keeps its height when its source has few images, so that the row captions stay aligned
        rows += [tiles[at * COLUMNS : (at + 1) * COLUMNS] for at in range(depth)]
    canvas = mosaic(rows)
    return Sheet(
        site=site,
        label=label,
        uri=data_uri(canvas),
        width=canvas.shape[1],
        height=canvas.shape[0],
        sources=tuple(source for source, _ in bands),
        shown=sum(len(row) for row in rows),
        of=sum(len(items) for _, items in bands),
    )

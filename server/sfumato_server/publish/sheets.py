"""Contact sheets: one mosaic per site and class, a band of rows per source; the first images by their random names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sfumato_common.imaging import decode_png
from sfumato_common.pictures import COLUMNS, data_uri, mosaic
from sfumato_common.study.lineage import sources_of
from sfumato_common.study.plan import Plan
from sfumato_common.types import ByteImages
from sfumato_server.pool import Pool, PoolItem

MOST_ROWS = 3  # of one sheet, shared by its bands


@dataclass(frozen=True)
class Sheet:
    """One mosaic as a data URI, its size in pixels, the sources of its bands from top to bottom, `depth` rows each."""

    site: str
    label: str
    uri: str
    width: int
    height: int
    sources: tuple[str, ...]
    depth: int
    shown: int
    of: int


def contact_sheets(pool: Pool, plan: Plan) -> list[Sheet]:
    """Sheets by site, then by the plan's order of labels and releases; deterministic, nothing is picked by eye."""
    sheets, sources = [], sources_of(plan)
    for site in pool.sites:
        first = pool.first(site, MOST_ROWS * COLUMNS)
        for label in plan.labels:
            own = {(source.method, source.model): items for source, items in first.items() if source.label == label}
            bands = [(source_name(*source), own[source]) for source in sources if source in own]
            if bands:
                of = sum(
                    images for source, images in pool.counts.items() if (source.site, source.label) == (site, label)
                )
                sheets.append(_sheet(site, label, bands, of))
    return sheets


def source_name(method: str, model: str) -> str:
    """What people are told an image comes from: the model it was sampled from, or the method and its model."""
    return model if method == "dp-sampling" else f"{method} ({model})"


def _sheet(site: str, label: str, bands: Sequence[tuple[str, list[PoolItem]]], of: int) -> Sheet:
    longest = max(len(items) for _, items in bands)
    depth = min(max(1, round(MOST_ROWS / len(bands))), math.ceil(longest / COLUMNS))
    rows: list[list[ByteImages]] = []
    for _, items in bands:
        tiles = [decode_png(item.png) for item in items[: depth * COLUMNS]]
        # a band keeps its height when its source has few images, so that the row captions stay aligned
        rows += [tiles[at * COLUMNS : (at + 1) * COLUMNS] for at in range(depth)]
    canvas = mosaic(rows, least_width=1)  # at the images' own size: a browser zooms
    return Sheet(
        site=site,
        label=label,
        uri=data_uri(canvas),
        width=canvas.shape[1],
        height=canvas.shape[0],
        sources=tuple(source for source, _ in bands),
        depth=depth,
        shown=sum(len(row) for row in rows),
        of=of,
    )

"""One picture of a published set: a row per site and source, half of it from each of the first two labels."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

from sfumato_common.files import write_atomic
from sfumato_common.pictures import COLUMNS, mosaic
from sfumato_common.study.costs import WITHOUT_PRIVACY
from sfumato_server.publish.manifest import ImageEntry
from sfumato_server.publish.reading import open_folder
from sfumato_server.publish.verify import verify_dataset

_BAND, _BAND_COLOUR = 28, "#8c1c13"


def write_overview(folder: Path, target: Path) -> int:
    """Verify the set in `folder`, write the picture as PNG to `target`, return the number of images shown.

    The first images by their random names are taken: nobody picked them. Raises VerificationError when the set does
    not hold.
    """
    private = verify_dataset(folder, None).private
    published = open_folder(folder)
    order = sorted(published.plan.labels)[:2]
    shown: dict[tuple[str, str, str], dict[str, list[ImageEntry]]] = {}
    for entry in published.entries():
        halves = shown.setdefault(_source(entry), {label: [] for label in order})
        if entry.label in halves and len(halves[entry.label]) < COLUMNS // len(order):
            halves[entry.label].append(entry)
    tiles = [
        [published.image(entry).pixels for half in halves.values() for entry in half]
        for _, halves in sorted(shown.items())
    ]
    picture = io.BytesIO()
    sheet = Image.fromarray(mosaic(tiles))
    (sheet if private else _mark(sheet)).save(picture, format="PNG", optimize=True)
    write_atomic(target, picture.getvalue())
    return sum(map(len, tiles))


def _source(entry: ImageEntry) -> tuple[str, str, str]:
    return entry.site, entry.method, entry.model


def _mark(sheet: Image.Image) -> Image.Image:
    """The picture under a red band with the sentence: a picture travels without the page that it came from."""
    marked = Image.new("RGB", (sheet.width, sheet.height + _BAND), _BAND_COLOUR)
    ImageDraw.Draw(marked).text((6, 6), f"NO PRIVACY: {WITHOUT_PRIVACY}", fill="white", font_size=_BAND // 2)
    marked.paste(sheet, (0, _BAND))
    return marked

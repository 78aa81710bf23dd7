"""One picture of a published set: a row per site and source, half of it from each of the first two labels."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from PIL import Image, ImageDraw

from sfumato_common.files import write_atomic
from sfumato_common.imaging import decode_png
from sfumato_common.study.costs import WITHOUT_PRIVACY
from sfumato_server.pictures import COLUMNS, mosaic
from sfumato_server.publish.verify import verify_dataset

_BAND, _BAND_COLOUR = 28, "#8c1c13"


def write_overview(folder: Path, target: Path) -> int:
    """Verify the set in `folder`, write the picture as PNG to `target`, return the number of images shown.

    The first images by their random names are taken: nobody picked them. Raises VerificationError when the set does
    not hold.
    """
    private = verify_dataset(folder, None).private
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    order = sorted({row["label"] for row in rows})[:2]
    tiles = []
    for source in sorted({_source(row) for row in rows}):
        mine = [row for row in rows if _source(row) == source]
        halves = [[row["file"] for row in mine if row["label"] == label][: COLUMNS // len(order)] for label in order]
        tiles.append([decode_png((folder / name).read_bytes()) for half in halves for name in half])
    picture = io.BytesIO()
    sheet = Image.fromarray(mosaic(tiles))
    (sheet if private else _mark(sheet)).save(picture, format="PNG", optimize=True)
    write_atomic(target, picture.getvalue())
    return sum(map(len, tiles))


def _source(row: dict[str, str]) -> tuple[str, str, str]:
    return row["site"], row["method"], row["model"]


def _mark(sheet: Image.Image) -> Image.Image:
    """The picture under a red band with the sentence: a picture travels without the page that it came from."""
    marked = Image.new("RGB", (sheet.width, sheet.height + _BAND), _BAND_COLOUR)
    ImageDraw.Draw(marked).text((6, 6), f"NO PRIVACY: {WITHOUT_PRIVACY}", fill="white", font_size=_BAND // 2)
    marked.paste(sheet, (0, _BAND))
    return marked

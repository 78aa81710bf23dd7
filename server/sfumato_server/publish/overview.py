"""One picture of a published set: a row per site and model, half of it from each of the first two labels."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from PIL import Image

from sfumato_common.files import write_atomic
from sfumato_common.package import decode_png
from sfumato_server.publish.sheets import COLUMNS, mosaic
from sfumato_server.publish.verify import verify_dataset


def write_overview(folder: Path, target: Path) -> int:
    """Verify the set in `folder`, write the picture as PNG to `target`, return the number of images shown.

    The first images by their random names are taken: nobody picked them. Raises VerificationError when the set does
    not hold.
    """
    verify_dataset(folder, None)
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    order = sorted({row["label"] for row in rows})[:2]
    tiles = []
    for site, model in sorted({(row["site"], row["model"]) for row in rows}):
        mine = [row for row in rows if (row["site"], row["model"]) == (site, model)]
        halves = [[row["file"] for row in mine if row["label"] == label][: COLUMNS // len(order)] for label in order]
        tiles.append([decode_png((folder / name).read_bytes()) for half in halves for name in half])
    picture = io.BytesIO()
    Image.fromarray(mosaic(tiles)).save(picture, format="PNG", optimize=True)
    write_atomic(target, picture.getvalue())
    return sum(map(len, tiles))

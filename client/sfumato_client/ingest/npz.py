"""Image sets as npz archives with one index table -> site images.

Columns are `set,row,site,patient_id,split,abnormal[,laterality][,view]`. `set` names an archive SET.npz beside the
index that holds `images` (uint8 or uint16, [N, H, W] or [N, H, W, 3]); archives are read without pickle. `abnormal`
0 or 1 is the label's index in the plan.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sfumato_client.ingest.records import SiteImage, Skipped, UnreadableError, to_form, view_of_row
from sfumato_client.ingest.table import split_name
from sfumato_common.errors import DataError
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import INDEX_COLUMNS, Row, read_table
from sfumato_common.types import AnyArray


def read_npz(index: Path, site: str, form: ImageForm, labels: list[str]) -> Iterator[SiteImage | Skipped]:
    """Yield the rows of `site`. Raises DataError for an unreadable index or archive, or a site without rows."""
    rows = [row for row in read_table(index, INDEX_COLUMNS) if row["site"] == site]
    if not rows:
        raise DataError(f"index '{index.name}' has no rows for site '{site}'; check the site's name")
    yield from read_rows(index.parent, rows, form, labels)


def read_rows(folder: Path, rows: Iterable[Row], form: ImageForm, labels: list[str]) -> Iterator[SiteImage | Skipped]:
    """Yield what `rows` of an index in `folder` describe. Raises DataError for an unreadable archive."""
    archives: dict[str, AnyArray] = {}
    for row in rows:
        if row["set"] not in archives:
            archives[row["set"]] = _load(folder, row["set"])
        try:
            yield _read(archives[row["set"]], row, form, labels)
        except UnreadableError as reason:
            yield Skipped(f"{row['set']}[{row['row']}]", str(reason))


def _load(folder: Path, name: str) -> AnyArray:
    if not name or Path(name).name != name:
        raise DataError("the index names a set that is not a plain file name; correct the column 'set'")
    try:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
            images: AnyArray = archive["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"'{name}.npz' cannot be read ({type(error).__name__}); it belongs beside the index") from None
    colour = images.ndim == 4 and images.shape[3] == 3
    if images.dtype not in (np.uint8, np.uint16) or not (images.ndim == 3 or colour):
        raise DataError(f"'{name}.npz': 'images' must be uint8 or uint16, [N, H, W] or [N, H, W, 3]")
    return images


def _read(images: AnyArray, row: Row, form: ImageForm, labels: list[str]) -> SiteImage:
    if not row["patient_id"]:
        raise UnreadableError("no patient id: the patient is the unit of protection")
    if row["abnormal"] not in {"0", "1"} or int(row["abnormal"]) >= len(labels):
        raise UnreadableError("its value of 'abnormal' is not 0 or 1")
    if not row["row"].isdecimal() or int(row["row"]) >= len(images):
        raise UnreadableError("its row is not in the set")
    pixels = images[int(row["row"])]
    display = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    split, view = split_name(row["split"]), view_of_row(row)
    return SiteImage(to_form(display, form), int(row["abnormal"]), row["patient_id"], split, view)

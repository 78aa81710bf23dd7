"""Image sets as npz archives with one index table -> site images.

Columns are `set,row,site,patient_id,split,abnormal[,laterality][,view]`. `set` names an archive SET.npz beside the
index that holds `images` (uint8 or uint16, [N, H, W] or [N, H, W, 3]); archives are read without pickle. `abnormal`
0 or 1 is the label's index in the plan.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sfumato_client.ingest.depth import shown
from sfumato_client.ingest.folders import Folder
from sfumato_client.ingest.jobs import Known, Results, unknown, words_of
from sfumato_client.ingest.records import Facts, Kept, SiteImage, Skipped, Stamp, Stamped, to_form, view_of_row
from sfumato_client.ingest.table import patient_of, split_name
from sfumato_common.archives import read_archive
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.errors import DataError
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import INDEX_COLUMNS, Row, read_table
from sfumato_common.types import AnyArray

_INDEX_OPTIONAL = ("laterality", "view")
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
_NUMBER, _LARGEST = re.compile(r"\+?([0-9]{1,12})([.,]0+)?"), 2**16 - 1  # `3.0`, as pandas writes it


def site_rows(index: Path, site: str, ignored: Iterable[str] = ()) -> list[Row]:
    """The rows of `site` in an index table. Raises DataError for an unreadable index, or a site without rows."""
    whole = read_table(index, INDEX_COLUMNS, _INDEX_OPTIONAL, ignored=list(ignored))
    rows = [row for row in whole if row["site"].casefold() == site.casefold()]
    if not rows:
        raise DataError(f"index '{index.name}' has no rows for site '{site}'; check the site's name")
    return rows


def read_stamped(
    folder: Path,
    rows: Iterable[Row],
    form: ImageForm,
    labels: list[str],
    bits: int | None = None,
    start: int = 0,
    known: Known = unknown,
) -> Iterator[Results]:
    """The results of every row from number `start` on, stamped; those are not read of which `known` has the images."""
    wanted, place = deque[Row](), Folder(folder)
    found = read_rows(folder, iter(wanted.popleft, None), form, labels, bits)
    for row in itertools.islice(rows, start, None):
        name = f"{row['set']}.npz"
        stamp = Stamp(_reference(row), words_of(row, True), name, *place.state_of(name))
        if numbers := known(stamp):
            yield Stamped([Kept(_reference(row), "", numbers)], stamp)
            continue
        wanted.append(row)
        yield Stamped([next(found)], stamp)


def read_rows(
    folder: Path, rows: Iterable[Row], form: ImageForm, labels: list[str], bits: int | None = None
) -> Iterator[SiteImage | Skipped]:
    """Yield what `rows` of an index in `folder` describe. Raises DataError for an unreadable archive."""
    archives: dict[str, AnyArray] = {}
    for row in rows:
        if row["set"] not in archives:
            archives[row["set"]] = read_archive(folder, row["set"])
        try:
            yield _read(archives[row["set"]], row, form, labels, bits)
        except UnreadableError as reason:
            yield Skipped(_reference(row), str(reason))


def _reference(row: Row) -> str:
    return f"{row['set']}[{row['row']}]"


def _label(flag: str, labels: list[str]) -> int:
    """0 or 1, or the plan's own word."""
    found = _FLAGS.get(flag.casefold().replace(",", "."))
    found = labels.index(flag.casefold()) if found is None and flag.casefold() in labels else found
    if found is None or found >= len(labels):
        raise UnreadableError("its value of 'abnormal' is not 0 or 1")
    return found


def _read(images: AnyArray, row: Row, form: ImageForm, labels: list[str], bits: int | None) -> SiteImage:
    patient, label = patient_of(row["patient_id"]), _label(row["abnormal"], labels)
    number = _NUMBER.fullmatch(row["row"])
    if number is None or int(number[1]) >= len(images):
        raise UnreadableError("its row is not in the set")
    notes, image = list[str](), images[int(number[1])]
    if image.dtype.kind == "i" or image.dtype.itemsize > 2:
        if image.min() < 0 or image.max() > _LARGEST:
            raise UnreadableError("it holds values that are not 0 to 65535: write uint8 or uint16")
        image = image.astype(np.uint16)
    display = shown(image, bits, notes.append)
    split, view = split_name(row["split"]), view_of_row(row)
    where = Facts(_reference(row))
    return SiteImage(to_form(display, form), label, patient, split, view, tuple(notes), where)

"""A folder of PNG files with a table (`file,patient_id,label[,split][,laterality][,view]`) -> site images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato_client.ingest.records import SiteImage, Skipped, UnreadableError, to_form, view_of_row
from sfumato_client.ingest.table import check_folder, inside, label_index, split_name, unlisted_files
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import Row, read_table

_DEEP_GREY = {"I", "I;16", "I;16B", "I;16L"}


def read_pngs(folder: Path, table: Path, form: ImageForm, labels: list[str]) -> Iterator[SiteImage | Skipped]:
    """Yield every listed file as an image or as skipped with its reason, then the files that nothing lists.

    Raises DataError when the folder or the table cannot be read; a broken file never raises.
    """
    check_folder(folder)
    seen: set[str] = set()
    for row in read_table(table, ("file", "patient_id", "label")):
        name = row["file"]
        try:
            if name in seen:
                raise UnreadableError("listed twice; the first row counts")
            seen.add(name)
            yield _read(inside(folder, name), row, form, labels)
        except UnreadableError as reason:
            yield Skipped(name, str(reason))
    for name in unlisted_files(folder, seen, table):
        yield Skipped(name, "no row in the labels table")


def _read(path: Path, row: Row, form: ImageForm, labels: list[str]) -> SiteImage:
    if not row["patient_id"]:
        raise UnreadableError("no patient id: the patient is the unit of protection")
    label = label_index(row["label"], labels)
    # with a split column every row must say its split: a silent mixture would make one patient's row decide for all
    split = split_name(row["split"]) if "split" in row else None
    view = view_of_row(row)
    try:
        display = _display(path)
    except UnreadableError:
        raise
    except Exception as error:  # a broken file must not stop the site, whatever the decoder raises
        raise UnreadableError(f"cannot be decoded ({type(error).__name__})") from None
    return SiteImage(to_form(display, form), label, row["patient_id"], split, view)


def _display(path: Path) -> npt.NDArray[np.float32]:
    """Display values 0..1: [H, W] for grey (1 to 16 bits), [H, W, 3] for colour and palettes; transparency ignored."""
    with Image.open(path, formats=["PNG"]) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise UnreadableError("animated image; only single radiographs are taken")
        if image.mode in _DEEP_GREY:
            return np.asarray(image).astype(np.float32) / np.float32(65535)
        mode = "L" if image.mode in {"1", "L", "LA"} else "RGB"
        return np.asarray(image.convert(mode), dtype=np.float32) / np.float32(255)

"""A folder of DICOM files with a labels table (`file,label`) -> site images.

The patient is the file's own PatientID (PS3.3 C.7.1.1), without its issuer: two issuers' patients of one number become
one patient, which is safe (both are protected as one unit); the reverse would split a patient in two.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from sfumato_client.ingest.pixels import display_values
from sfumato_client.ingest.records import SiteImage, Skipped, UnreadableError, to_form, view_name
from sfumato_client.ingest.table import check_folder, inside, label_index, unlisted_files
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import read_table


def read_dicom(folder: Path, table: Path, form: ImageForm, labels: list[str]) -> Iterator[SiteImage | Skipped]:
    """Yield every listed file as an image or as skipped with its reason, then the files that nothing lists.

    Raises DataError when the folder or the table cannot be read; a broken file never raises.
    """
    check_folder(folder)
    seen: set[str] = set()
    for row in read_table(table, ("file", "label")):
        name = row["file"]
        try:
            if name in seen:
                raise UnreadableError("listed twice; the first row counts")
            seen.add(name)
            yield _read(inside(folder, name), label_index(row["label"], labels), form)
        except UnreadableError as reason:
            yield Skipped(name, str(reason))
    for name in unlisted_files(folder, seen, table):
        yield Skipped(name, "no row in the labels table")


def _read(path: Path, label: int, form: ImageForm) -> SiteImage:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every odd header; what matters is in the reason
            dataset = dcmread(path)
            patient = str(dataset.get("PatientID") or "").strip(" \0\t\r\n")
            if not patient:
                raise UnreadableError("no patient id: the patient is the unit of protection")
            display, view = display_values(dataset), _view(dataset)
        return SiteImage(to_form(display, form), label, patient, None, view)
    except UnreadableError:
        raise
    except InvalidDicomError:
        raise UnreadableError("not a DICOM file (no preamble)") from None
    except Exception as error:  # decoders raise anything at all on broken data, and one file must not stop the site
        raise UnreadableError(f"cannot be decoded ({type(error).__name__})") from None


def _view(dataset: Dataset) -> str:
    """ImageLaterality, else the series' Laterality (PS3.3 C.7.6.16.2.8, C.7.3.1), and ViewPosition (C.8.7.5)."""
    side, view = (dataset.get(name) for name in ("ImageLaterality", "ViewPosition"))
    return view_name(str(side or dataset.get("Laterality") or ""), str(view or ""))

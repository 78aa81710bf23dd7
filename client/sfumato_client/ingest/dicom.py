"""A folder of DICOM files with a table (`file,label[,patient_id][,split][,laterality][,view]`) -> site images.

The patient is the table's, where it has a column `patient_id`, or the file's own PatientID (PS3.3 C.7.1.1), without its
issuer: two issuers' patients of one number become one patient, which is safe (both are protected as one unit); the
reverse would split a patient in two.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pydicom import Dataset

from sfumato_client.ingest.alike import is_placeholder, plain_person, says_nothing
from sfumato_client.ingest.burned_in import cleared
from sfumato_client.ingest.folders import opened
from sfumato_client.ingest.jobs import Job, Results
from sfumato_client.ingest.labelled import Labelled
from sfumato_client.ingest.records import Facts, SiteImage, Skipped, Split, TextPolicy, to_form, view_name, view_of_row
from sfumato_client.ingest.table import Labels, split_name
from sfumato_common.dicom.elements import Note, integer, named
from sfumato_common.dicom.frames import pixel_shape, undecodable
from sfumato_common.dicom.objects import check_object
from sfumato_common.dicom.opening import open_dicom
from sfumato_common.dicom.pixels import display_values
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import Row
from sfumato_common.types import ByteImages

# which frames of a multi-frame image are taken: none, the first, all, or every n-th
Frames = Literal["none", "first", "all"] | int


@dataclass(frozen=True)
class Taking:
    """What of a folder is taken and how: the study's form and labels, and what the source allows by name."""

    form: ImageForm
    labels: Labels
    allowed: Collection[str] = field(default_factory=set)
    frames: Frames = "none"
    text: TextPolicy = "reject"
    # what the file says of its label, where the table does not
    said: Labelled | None = None


def read_dicom_file(job: Job, taking: Taking) -> Results:
    """The images of one file. Raises UnreadableError with the reason why there are none."""
    row = job.row
    label = taking.labels.index(row["label"]) if taking.said is None else None
    split: Split | None = split_name(row["split"]) if job.splits else None
    notes = list[str]()
    with opened(job.path) as file:
        dataset = open_dicom(file, notes.append)
    patient = _patient(dataset, row)
    check_object(dataset, taking.allowed, notes.append)
    if label is None:
        assert taking.said is not None
        label = taking.labels.index(taking.said(dataset))
    view = view_of_row(row) if row.get("laterality") or row.get("view") else _view(dataset)
    frames, results = _frames(dataset, taking.frames), Results()
    for frame in frames:
        number = "" if len(frames) == 1 else f"[{frame}]"
        name = row["file"] + number
        own = list(notes)
        try:
            pixels = _pixels(dataset, frame, taking, own.append)
        except UnreadableError as reason:
            results.append(Skipped(name, str(reason)))
            continue
        if len(frames) > 1:
            job.step()
        said = (pixels, label, patient, split, view)
        results.append(SiteImage(*said, tuple(dict.fromkeys(own)), _facts(dataset, name, number)))
    return results


def _patient(dataset: Dataset, row: Row) -> str:
    """The table's patient, or else the header's."""
    own = row.get("patient_id", "")
    patient = own or str(dataset.get("PatientID") or "").strip(" \0\t\r\n")
    if not patient or says_nothing(patient):
        raise UnreadableError(
            f"no patient id: its {named('PatientID')} is empty, and the table has no 'patient_id' for it"
        )
    return patient


def _facts(dataset: Dataset, name: str, number: str) -> Facts:
    """What else the header says; frames of one object have its SOP Instance UID with their `number`."""

    def said(keyword: str) -> str:
        return str(dataset.get(keyword) or "").strip()

    device = f"{said('Manufacturer')} {said('ManufacturerModelName')}".strip()
    person = plain_person(said("PatientName"), said("PatientBirthDate"))
    instance = said("SOPInstanceUID") and said("SOPInstanceUID") + number
    others = "\n".join(dict.fromkeys(_other_ids(dataset)))
    return Facts(name, instance, said("StudyInstanceUID"), person, device, said("Modality"), others)


def _other_ids(dataset: Dataset) -> Iterator[str]:
    """Other Patient IDs and those of its sequence (PS3.3 C.7.1.1), which a system that merges patients writes."""
    value = dataset.get("OtherPatientIDs") or []
    named_so = [value] if isinstance(value, str) else list(value)
    for one in [*named_so, *(item.get("PatientID") for item in dataset.get("OtherPatientIDsSequence") or [])]:
        text = str(one or "").strip(" \0\t\r\n")
        if text and not says_nothing(text) and not is_placeholder(text):
            yield text


def _pixels(dataset: Dataset, frame: int, taking: Taking, note: Note) -> ByteImages:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            display = display_values(dataset, note, frame)
        return to_form(cleared(display, taking.text, note), taking.form, pixel_shape(dataset, frame))
    except (UnreadableError, MemoryError):
        raise
    except Exception:  # decoders raise anything at all on broken data, and one file must not stop the site
        raise UnreadableError(undecodable(dataset)) from None


def _frames(dataset: Dataset, wanted: Frames) -> range:
    """Numbers of the frames that are taken."""
    count = integer(dataset, "NumberOfFrames") or 1
    if count == 1 or wanted == "first":
        return range(1)
    if wanted == "none":
        what = named("NumberOfFrames")
        raise UnreadableError(
            f"multi-frame image: its {what} is {count}; write 'frames: first', 'all' or a step in the source to take it"
        )
    return range(0, count, 1 if wanted == "all" else wanted)


def _view(dataset: Dataset) -> str:
    """ImageLaterality, else the series' Laterality (PS3.3 C.7.6.16.2.8, C.7.3.1), and ViewPosition (C.8.7.5)."""
    side, view = (dataset.get(name) for name in ("ImageLaterality", "ViewPosition"))
    return view_name(str(side or dataset.get("Laterality") or ""), str(view or ""))

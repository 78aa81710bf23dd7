"""What the headers of a DICOM file say of it, and whether the file is whole; its pixels are passed over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

# values beyond this are passed over and not read
_LONG = 64 * 1024
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Header:
    """Values by which labels are joined and a source is described; as the file has them, without blanks around."""

    accession: str
    study: str
    series: str
    instance: str
    patient: str
    modality: str
    sop_class: str
    date: str
    view: str
    laterality: str


_KEYWORDS = {
    "accession": "AccessionNumber",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
    "patient": "PatientID",
    "modality": "Modality",
    "sop_class": "SOPClassUID",
    "date": "StudyDate",
    "view": "ViewPosition",
    "laterality": "ImageLaterality",
}


def read_header(path: Path) -> Header | str:
    """The header of a whole DICOM file with its UIDs, or the reason why it is none."""
    try:
        with path.open("rb") as stream:
            dataset = dcmread(stream, defer_size=_LONG)
        whole = _is_whole(dataset, path.stat().st_size)
        values = {name: _value(dataset, keyword) for name, keyword in _KEYWORDS.items()}
    except Exception:  # pydicom raises anything at all on broken data
        return "what came is no DICOM file"
    if not len(dataset) or not whole:  # pydicom gives an empty one where a value ends too early
        return "what came is a DICOM file that is cut off"
    if not all(UID(values[name]).is_valid for name in ("study", "series", "instance", "sop_class")):
        return "what came has no valid UIDs of study, series, object and class"
    return Header(**values)


def _value(dataset: Dataset, keyword: str) -> str:
    """The first value of an element as text; empty where there is none, or it cannot be read."""
    try:
        value = dataset.get(keyword)
    except Exception:  # a value that its representation does not allow
        return ""
    first = value[0] if isinstance(value, list | tuple) and value else value
    return "" if first is None else " ".join(str(first).split()).strip("\0 ")


def _is_whole(dataset: Dataset, size: int) -> bool:
    """Whether every value has the length that it says, also those that were passed over."""
    for element in dataset.values():
        if not isinstance(element, RawDataElement) or element.length == _UNDEFINED:
            continue
        held = size - element.value_tell if element.value is None else len(element.value)
        if held < element.length:
            return False
    return True

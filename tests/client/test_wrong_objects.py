"""Objects among radiographs that are none: each is refused, and taken only where the source allows it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.dicoms import make, save
from support.reading import read_dicom

from sfumato_client.ingest import SiteImage, Skipped
from sfumato_common.study.terms import ImageForm

FORM, LABELS = ImageForm(size=32), ["normal", "opacity"]
STORAGE = "1.2.840.10008.5.1.4.1.1."
DX, SC = STORAGE + "1.1", STORAGE + "7"
# what it is: elements of the header, and the word that allows it
ALLOWED: dict[str, tuple[dict[str, Any], str]] = {
    "burned-in annotation": ({"BurnedInAnnotation": "YES"}, "burned-in"),
    "the same in small letters": ({"BurnedInAnnotation": "yes "}, "burned-in"),
    "scanned document": ({"SOPClassUID": SC, "ConversionType": "SD", "Modality": "OT"}, "scanned"),
    "raw values": ({"PresentationIntentType": "FOR PROCESSING"}, "for-processing"),
    "raw values by class alone": ({"SOPClassUID": DX + ".1"}, "for-processing"),
    "ultrasound": ({"SOPClassUID": STORAGE + "6.1", "Modality": "US"}, "US"),
    "CT": ({"SOPClassUID": STORAGE + "2", "Modality": "CT"}, "CT"),
    "CT that says it is a radiograph": ({"SOPClassUID": STORAGE + "2", "Modality": "DX"}, "CT"),
    "CT without a modality": ({"SOPClassUID": STORAGE + "2", "Modality": ""}, "CT"),
    "MR": ({"SOPClassUID": STORAGE + "4", "Modality": "MR"}, "MR"),
    "enhanced CT": ({"SOPClassUID": STORAGE + "2.1", "Modality": "CT"}, "CT"),
    "captured ultrasound": ({"SOPClassUID": SC, "Modality": "US"}, "US"),
}
# no word allows these: they are no pictures
NEVER = {
    "structured report": {"SOPClassUID": STORAGE + "88.22", "Modality": "SR"},
    "PDF": {"SOPClassUID": STORAGE + "104.1", "Modality": "DOC"},
    "segmentation": {"SOPClassUID": STORAGE + "66.4", "Modality": "SEG"},
    "presentation state": {"SOPClassUID": STORAGE + "11.1", "Modality": "PR"},
    "key objects": {"SOPClassUID": STORAGE + "88.59", "Modality": "KO"},
    "radiotherapy structures": {"SOPClassUID": STORAGE + "481.3", "Modality": "RTSTRUCT"},
}


def read(tmp_path: Path, elements: dict[str, Any], allow: list[str]) -> SiteImage | Skipped:
    """The object among radiographs; a radiograph beside it is kept whatever it is."""
    ramp = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48)
    save(make(ramp), tmp_path / "film.dcm", PresentationIntentType="FOR PRESENTATION")
    dataset = make(ramp + 1)
    save(dataset, tmp_path / "other.dcm", **elements)
    (tmp_path / "labels.csv").write_text("file,label\nfilm.dcm,normal\nother.dcm,normal\n")
    film, other = read_dicom(tmp_path, tmp_path / "labels.csv", FORM, LABELS, allow=allow)
    assert isinstance(film, SiteImage)
    return other


@pytest.mark.parametrize("what", ALLOWED)
def test_an_object_is_refused_unless_its_class_is_allowed(what: str, tmp_path: Path) -> None:
    elements, word = ALLOWED[what]
    found = read(tmp_path, elements, [])
    assert isinstance(found, Skipped)
    assert f"write 'allow: [{word}]'" in found.reason
    others = [other for _, other in ALLOWED.values() if other != word]
    assert isinstance(read(tmp_path, elements, others), Skipped), "another word does not allow it"
    assert isinstance(read(tmp_path, elements, [word]), SiteImage)


@pytest.mark.parametrize("what", NEVER)
def test_what_is_no_picture_is_never_taken(what: str, tmp_path: Path) -> None:
    for allow in ([], [NEVER[what]["Modality"], *(word for _, word in ALLOWED.values())]):
        found = read(tmp_path, NEVER[what], allow)
        assert isinstance(found, Skipped)
        assert "no picture of a patient" in found.reason

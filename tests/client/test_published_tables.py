"""Tables of public collections as they are written: PadChest, VinDr-CXR and the pneumonia challenge of the RSNA.

Columns and words are theirs, images and identifiers are not.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.dicoms import make, save

from sfumato_client.dataset import IngestReport, SiteStore
from sfumato_client.dataset.filling import StoreTerms
from sfumato_client.ingest import Answers, SiteImage, Skipped, read_source
from sfumato_client.ingest.sources import AnySource, DicomSource, ImagesSource, read_rows
from sfumato_common.errors import DataError
from sfumato_common.strict import parse
from sfumato_common.study.terms import ImageForm

FORM, LABELS, KEY = ImageForm(size=16), ["normal", "opacity"], b"k" * 32
# fmt: off
PADCHEST = [
    "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
    "ViewPosition_DICOM", "Projection", "Pediatric", "MethodProjection", "Modality_DICOM", "Manufacturer_DICOM",
    "PhotometricInterpretation_DICOM", "PixelRepresentation_DICOM", "PixelAspectRatio_DICOM",
    "SpatialResolution_DICOM", "BitsStored_DICOM", "WindowCenter_DICOM", "WindowWidth_DICOM", "Rows_DICOM",
    "Columns_DICOM", "XRayTubeCurrent_DICOM", "Exposure_DICOM", "ExposureInuAs_DICOM", "ExposureTime_DICOM",
    "RelativeXRayExposure_DICOM", "ReportID", "Report", "MethodLabel", "Labels", "Localizations",
    "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS",
]
# fmt: on


def written(path: Path, columns: list[str], *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def films(folder: Path, ending: str, *names: str, patient: bool = True) -> None:
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 4096, (32, 32)).astype(np.uint16)
        if ending == ".png":
            Image.fromarray(pixels * 16).save(folder / f"{name}{ending}")
        else:
            save(make(pixels, bits=12), folder / f"{name}{ending}", patient=name if patient else "")


def read(source: AnySource) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """(patient and label of every image, the reason of every other row), by reference."""
    found = list(read_source(source, FORM, LABELS))
    images = {one.facts.reference: (one.patient_id, LABELS[one.label]) for one in found if isinstance(one, SiteImage)}
    return images, {one.reference: one.reason for one in found if isinstance(one, Skipped)}


def stored(folder: Path, source: AnySource, **answers: Any) -> IngestReport:
    terms = StoreTerms(FORM, LABELS, KEY, KEY, Answers(**answers))
    return SiteStore.grow(folder / "store", lambda start: read_rows(source, FORM, LABELS, start=start), terms)


def test_padchest_as_it_is_written(tmp_path: Path) -> None:
    names = ["1_02-012-001", "1_02-012-002", "1_02-012-003", "1_02-012-004", "1_02-012-005", "1_02-012-006"]
    films(tmp_path, ".png", *names)
    said = [
        "['normal']",
        "['pneumonia', 'unchanged', 'loc basal']",
        "[' alveolar pattern', 'pneumonia ', '']",
        "['exclude']",
        "",
        "['']",
    ]
    rows = [
        {"": str(n), "ImageID": f"{name}.png", "PatientID": f"9{n}", "Projection": "PA", "Labels": said[n],
         "Report": "sin hallazgos, \"normal\"\nsegunda linea"}
        for n, name in enumerate(names)
    ]  # fmt: skip
    value = {
        "kind": "images",
        "folder": str(tmp_path),
        "labels": str(written(tmp_path / "PADCHEST.csv", PADCHEST, *rows)),
        "columns": {"file": "ImageID", "patient_id": "PatientID", "label": "Labels"},
        "ignored_columns": [name for name in PADCHEST if name and name not in ("ImageID", "PatientID", "Labels")],
        "map": {"pneumonia": "opacity", "alveolar pattern": "opacity"},
    }
    images, reasons = read(parse(value, ImagesSource, "source.yaml"))
    assert images == {f"{names[0]}.png": ("90", "normal"), **{
        f"{names[n]}.png": (f"9{n}", "opacity") for n in (1, 2)}}  # fmt: skip
    assert set(reasons) == {f"{names[n]}.png" for n in (3, 4, 5)}
    assert "not one of the plan's" in reasons[f"{names[3]}.png"]
    with pytest.raises(DataError, match="'ImageDir' that nothing reads"):
        read(parse({**value, "ignored_columns": []}, ImagesSource, "source.yaml"))


def vindr(folder: Path, table: Path, label: str, **more: Any) -> DicomSource:
    """The files end in .dicom and say no patient: each image is one by its name, which is all that is known."""
    value = {"kind": "dicom", "folder": str(folder), "labels": str(table), "text": "allow"}
    columns = {"file": "image_id", "patient_id": "image_id", "label": label}
    return parse({**value, "columns": columns, **more}, DicomSource, "source.yaml")


def test_vindr_with_a_column_for_every_finding(tmp_path: Path) -> None:
    films(tmp_path, ".dicom", "aa01", "bb02", "cc03", patient=False)
    findings = ["Aortic enlargement", "Cardiomegaly", "Nodule/Mass", "Pneumonia", "Other diseases", "No finding"]
    zeros = dict.fromkeys(findings, "0")
    rows = [{"image_id": "aa01", "rad_id": f"R{n}", **zeros, "No finding": "1"} for n in (1, 2, 3)]
    rows += [{"image_id": "bb02", "rad_id": f"R{n}", **zeros, "Pneumonia": "1"} for n in (1, 2, 3)]
    rows += [{"image_id": "cc03", "rad_id": "R1", **zeros, "No finding": "1"}]
    rows += [{"image_id": "cc03", "rad_id": "R2", **zeros, "Pneumonia": "1"}]
    table = written(tmp_path / "image_labels_train.csv", ["image_id", "rad_id", *findings], *rows)
    more = {"ignored_columns": ["rad_id", *findings[:-1]], "map": {"1": "normal", "0": "opacity"}}
    source = vindr(tmp_path, table, "No finding", **more)
    with pytest.raises(DataError, match="image_of_two_labels"):
        stored(tmp_path / "asked", source)
    report = stored(tmp_path / "dropped", source, image_of_two_labels="drop")
    assert (report.kept, report.patients) == (2, 2)
    assert report.reasons["listed twice; the first row counts"] == 4


def test_vindr_with_a_row_for_every_box(tmp_path: Path) -> None:
    films(tmp_path, ".dicom", "aa01", "bb02", patient=False)
    columns = ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
    rows = [{"image_id": "aa01", "class_name": "No finding", "class_id": "14", "rad_id": f"R{n}"} for n in (1, 2, 3)]
    boxes = ("Aortic enlargement", "Cardiomegaly", "Aortic enlargement", "Nodule/Mass")
    rows += [{"image_id": "bb02", "class_name": name, "x_min": str(n), "y_min": "1"} for n, name in enumerate(boxes)]
    table = written(tmp_path / "train.csv", columns, *rows)
    more = {
        "ignored_columns": ["class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"],
        "map": {"No finding": "normal", **dict.fromkeys(boxes, "opacity")},
    }
    report = stored(tmp_path / "site", vindr(tmp_path, table, "class_name", **more))
    assert (report.kept, report.patients) == (2, 2), "a box more is no row that was lost"


def test_the_pneumonia_challenge(tmp_path: Path) -> None:
    names = ("0004cfab-14fd", "000924cf-0f8d", "000db696-cf54")
    films(tmp_path, ".dcm", *names)
    columns = ["patientId", "x", "y", "width", "height", "Target"]
    rows = [{"patientId": names[0], "Target": "0"}, {"patientId": names[2], "Target": "0"}]
    rows += [{"patientId": names[1], "x": x, "y": "152.0", "width": "213.0", "height": "379.0", "Target": "1"}
             for x in ("264.0", "562.0")]  # fmt: skip
    value = {
        "kind": "dicom",
        "folder": str(tmp_path),
        "labels": str(written(tmp_path / "stage_2_train_labels.csv", columns, *rows)),
        "columns": {"file": "patientId", "label": "Target"},
        "ignored_columns": ["x", "y", "width", "height"],
        "map": {"0": "normal", "1": "opacity"},
        "text": "allow",
    }
    images, reasons = read(parse(value, DicomSource, "source.yaml"))
    assert images == {names[0]: (names[0], "normal"), names[1]: (names[1], "opacity"), names[2]: (names[2], "normal")}
    assert {name: why for name, why in reasons.items() if name != "stage_2_train_labels.csv"} == {
        names[1]: "listed twice; the first row counts"
    }
    classes = ("Normal", "Lung Opacity", "No Lung Opacity / Not Normal")
    rows = [{"patientId": name, "class": said} for name, said in zip(names, classes, strict=True)]
    other = written(tmp_path / "stage_2_detailed_class_info.csv", ["patientId", "class"], *rows)
    meant = {"Lung Opacity": "opacity", "No Lung Opacity / Not Normal": None}
    more = {"labels": str(other), "columns": {"file": "patientId", "label": "class"}, "map": meant}
    images, reasons = read(parse({**value, **more, "ignored_columns": []}, DicomSource, "source.yaml"))
    assert {name: label for name, (_, label) in images.items()} == {names[0]: "normal", names[1]: "opacity"}
    assert "drops" in reasons[names[2]]

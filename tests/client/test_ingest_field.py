"""Inputs after public bug reports that once failed (shared/data/field): each gives a picture, reason or question."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.reading import read_dicom, read_images, read_pngs

from sfumato_client.dataset import SiteStore
from sfumato_client.ingest import SiteImage, Skipped, read_source
from sfumato_client.ingest.sources import AnySource, DicomSource, NpzSource, PngSource
from sfumato_common.errors import DataError
from sfumato_common.imaging import fit_square
from sfumato_common.study.terms import ImageForm

FIELD = Path(__file__).resolve().parents[3] / "shared" / "data" / "field"
FORM, LABELS = ImageForm(size=64), ["normal", "opacity"]
TAG = re.compile(r"\([0-9A-F]{4},[0-9A-F]{4}\)")

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not FIELD.exists(), reason="the medical test collection is not beside this checkout"),
]


def facts(kind: str) -> list[str]:
    """Names of the collection's cases of one folder."""
    if not FIELD.exists():
        return []
    with (FIELD / "table.csv").open(encoding="utf-8") as stream:
        return [row["name"] for row in csv.DictReader(stream) if row["name"].startswith(f"{kind}/")]


def read(name: str, folder: Path) -> SiteImage | Skipped:
    """One DICOM file of the collection, as a source reads it."""
    table = folder / "labels.csv"
    table.write_text(f"file,label\n{name},normal\n")
    return next(iter(read_dicom(FIELD / "dicom", table, FORM, LABELS)))


# what a viewer shows is another picture than the plain one: another window, a curve, colours, padding
OTHERWISE = ("enhanced-window", "voi-function-2", "jpeg-rgb-lies", "padding-us-signed", "no-window-hot-pixel")


@pytest.mark.parametrize("name", [name for name in facts("dicom") if "case-" in name])
def test_a_file_gives_its_picture_or_names_an_element(name: str, tmp_path: Path) -> None:
    found, plain = read(name.split("/")[1], tmp_path), read("case-dup-a.dcm", tmp_path)
    assert isinstance(plain, SiteImage)
    if isinstance(found, Skipped):
        assert TAG.search(found.reason), found.reason
        return
    if any(case in name for case in OTHERWISE):
        assert found.pixels.std() > 20
        return
    assert np.abs(found.pixels.astype(float) - plain.pixels).mean() < 4.0


def test_a_window_of_functional_groups_is_used(tmp_path: Path) -> None:
    found, plain = (read(f"case-{name}.dcm", tmp_path) for name in ("enhanced-window", "dup-a"))
    assert isinstance(found, SiteImage)
    assert isinstance(plain, SiteImage)
    # 1024 values through a window of 500 about 300
    expected = np.clip((plain.pixels / 255.0 * 1023 - 299.5) / 499 + 0.5, 0, 1) * 255
    assert np.abs(found.pixels - expected).mean() < 2.0


@pytest.mark.parametrize("number", [0, 1])
def test_padding_in_the_wrong_representation_is_black(number: int, tmp_path: Path) -> None:
    found = read(f"case-padding-us-signed-{number}.dcm", tmp_path)
    assert isinstance(found, SiteImage)
    assert 105 < found.pixels.mean() < 120


def test_broken_jpegs_cost_themselves_alone(tmp_path: Path) -> None:
    rows = (FIELD / "dicom-abort" / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(rows)
    found = list(read_dicom(FIELD / "dicom-abort", tmp_path / "labels.csv", FORM, LABELS))
    reasons = [entry.reason for entry in found if isinstance(entry, Skipped) and "abort" in entry.reference]
    assert len(reasons) == 2
    assert all("damaged" in reason or "cannot be decoded" in reason for reason in reasons)


def ingest(source: AnySource, folder: Path) -> tuple[dict[str, Any], str]:
    """(report, refusal) of an ingest; either may be empty."""
    refused = ""
    try:
        images = read_source(source, FORM, LABELS)
        SiteStore.create(folder / "store", images, FORM, LABELS, b"k" * 32, b"k" * 32, answers=source.answers)
    except DataError as error:
        refused = str(error)
    report = folder / "ingest-report.json"
    return (json.loads(report.read_text()) if report.exists() else {}), refused


TABLES = {
    "backslash": 3,
    "copy-bytes": "image_of_two_patients",
    "cp1252": "Windows-1252",
    "dup-conflict": "image_of_two_labels",
    "dup-dot": "image_of_two_patients",
    "dup-header": "column 'label' twice",
    "dup-patient": "image_of_two_patients",
    "extra-cols": "line 2 has 4 values for 3 columns",
    "header-case": 3,
    "header-patientid": "is 'PatientID' meant",
    "label-case": 3,
    "label-missing": 2,
    "pid-case": "alike_ids",
    "pid-excel": "Excel lost digits",
    "pid-null": "no patient id",
    "pid-unicode": "alike_ids",
    "pid-zeros": "alike_ids",
    "quote": "line 4",
    "semicolon": 3,
    "split-case": 3,
    "split-empty": 3,
    "split-mimic": 3,
    "split-only-train": 3,
}


def test_every_table_of_the_collection_is_expected_here() -> None:
    assert {name.split("/")[1] for name in facts("tables")} == set(TABLES)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_is_read_or_its_fault_is_named(name: str, tmp_path: Path) -> None:
    folder, expected = FIELD / "tables" / name, TABLES[name]
    source = PngSource(kind="png", folder=folder / "images", labels=folder / "labels.csv")
    report, refused = ingest(source, tmp_path)
    if isinstance(expected, int):
        assert (report["kept"], refused) == (expected, "")
    else:
        assert expected in refused


def test_a_table_of_dicom_files_may_say_split_and_patient(tmp_path: Path) -> None:
    folder = FIELD / "dicom-tables" / "split-column"
    entries = list(read_dicom(folder / "images", folder / "labels.csv", FORM, LABELS))
    assert [entry.split for entry in entries if isinstance(entry, SiteImage)] == ["holdout", "train", "train"]
    folder = FIELD / "dicom-tables" / "patient-column-noid"
    entries = list(read_dicom(folder / "images", folder / "labels.csv", FORM, LABELS))
    assert [entry.patient_id for entry in entries if isinstance(entry, SiteImage)] == ["PAT1", "PAT2"]
    folder = FIELD / "dicom-tables" / "dup-uid"
    _, refused = ingest(DicomSource(kind="dicom", folder=folder / "images", labels=folder / "labels.csv"), tmp_path)
    assert "image_of_two_patients" in refused
    assert "image_of_two_labels" in refused
    folder = FIELD / "dicom-tables" / "cut-off-compressed"
    _, refused = ingest(DicomSource(kind="dicom", folder=folder / "images", labels=folder / "labels.csv"), tmp_path)
    assert "cut off" in refused


ARCHIVES = {
    "abnormal-float": 6,
    "big-endian": 6,
    "corrupt-deflate": "damaged",
    "deflate64": "compressed in a way",
    "encrypted": "password",
    "header-claims-1TB": "claims more",
    "header-garbage": "damaged",
    "npy-renamed": "single array",
    "other-key": "it has: x",
    "row-twice": "image_of_two_labels",
    "row-two-patients": "image_of_two_patients",
    "uint16-12bit": 6,
}


def test_every_archive_of_the_collection_is_expected_here() -> None:
    assert {name.split("/")[1] for name in facts("npz")} == set(ARCHIVES)


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_an_archive_is_read_or_its_fault_is_named(name: str, tmp_path: Path) -> None:
    source, expected = NpzSource(kind="npz", index=FIELD / "npz" / name / "index.csv", site="alder"), ARCHIVES[name]
    report, refused = ingest(source, tmp_path)
    if isinstance(expected, int):
        assert (report["kept"], refused) == (expected, "")
    else:
        assert expected in refused


def picture(name: str, folder: Path, reader: Any = read_pngs) -> SiteImage | Skipped:
    table = folder / "labels.csv"
    table.write_text(f"file,patient_id,label\n{name},7,normal\n")
    return next(iter(reader(FIELD / "png", table, FORM, LABELS)))


@pytest.mark.parametrize("name", ["grey16-12bit.png", "grey16-10bit.png", "text-chunk-2MB.png", "icc-1.5MB.png"])
def test_a_png_is_as_bright_as_it_was(name: str, tmp_path: Path) -> None:
    found = picture(name, tmp_path)
    assert isinstance(found, SiteImage)
    assert 105 < found.pixels[fit_square(np.ones((64, 64)), 64) > 0].mean() < 140


def test_a_jpeg_called_png_is_said_so_and_read_as_an_image(tmp_path: Path) -> None:
    found = picture("jpeg-inside.png", tmp_path)
    assert isinstance(found, Skipped)
    assert "JPEG" in found.reason
    assert "kind: images" in found.reason
    assert isinstance(picture("jpeg-inside.png", tmp_path, read_images), SiteImage)

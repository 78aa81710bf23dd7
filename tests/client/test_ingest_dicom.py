"""Folders of DICOM: phantoms through the whole reading path, and everything that can be wrong with a file."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.reading import read_dicom

from sfumato_client.ingest import SiteImage, Skipped
from sfumato_common.errors import DataError
from sfumato_common.imaging import fit_square
from sfumato_common.phantom import DEVICES, draw_patient
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.study.terms import ImageForm

FORM = ImageForm(size=64)
LABELS = ["normal", "opacity"]


def read(folder: Path, form: ImageForm = FORM) -> list[SiteImage | Skipped]:
    return list(read_dicom(folder, folder / "labels.csv", form, LABELS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_cohort(tmp_path / "c", "north", 3, 1, "aurora")
    return tmp_path / "c"


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_ingest_gives_back_what_was_drawn_in_the_right_polarity(tmp_path: Path, name: str) -> None:
    write_cohort(tmp_path, "north", 5, 1, name)
    taken = read(tmp_path)
    people = [draw_patient(1, "north", n, DEVICES[name]) for n in range(1, 6)]
    drawn = [(p.patient_id, label, image) for p in people for image, label in zip(p.images, p.labels, strict=True)]
    assert len(taken) == len(drawn)
    for entry, (patient, label, image) in zip(taken, drawn, strict=True):
        assert isinstance(entry, SiteImage)
        assert (entry.patient_id, entry.label, entry.split) == (patient, label, None)
        assert (entry.pixels.shape, entry.pixels.dtype) == ((64, 64), np.uint8)
        np.testing.assert_allclose(entry.pixels, fit_square(image, 64) * 255, atol=1.0)


def test_vendors_agree_on_one_patient(tmp_path: Path) -> None:
    """One fictional person on a MONOCHROME1 and a MONOCHROME2 system: same polarity, so strongly correlated."""
    images = []
    for name in ("aurora", "cirrus"):
        write_cohort(tmp_path / name, "north", 1, 1, name)
        first = read(tmp_path / name)[0]
        assert isinstance(first, SiteImage)
        images.append(first.pixels[12:52, 12:52].astype(float).ravel())
    assert np.corrcoef(images)[0, 1] > 0.6


def test_three_channels(folder: Path) -> None:
    first = read(folder, ImageForm(size=32, channels=3))[0]
    assert isinstance(first, SiteImage)
    assert first.pixels.shape == (32, 32, 3)


def damage(folder: Path, kind: str) -> str:
    """Break the first listed file; returns its name."""
    name = sorted(path.name for path in folder.glob("*.dcm"))[0]
    path = folder / name
    data = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not an image at all")
    elif kind == "truncated pixels":
        path.write_bytes(data[:-5000])
    elif kind == "truncated header":
        path.write_bytes(data[:300])
    elif kind == "gone":
        path.unlink()
    else:
        dataset = pydicom.dcmread(path)
        if kind == "no pixels":
            del dataset.PixelData
        elif kind == "no patient":
            dataset.PatientID = "  "
        elif kind == "frames":
            dataset.NumberOfFrames = 3
        elif kind == "bad syntax":
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
            dataset.PixelData = pydicom.encaps.encapsulate([b"\x00" * 64])
            dataset["PixelData"].is_undefined_length = True
        elif kind == "bad window":
            dataset.VOILUTFunction = "CUBIC"
        dataset.save_as(path)
    return name


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "DICOM|decoded"),
        ("text", "not a DICOM file"),
        ("truncated pixels", "cannot be decoded"),
        ("truncated header", "damaged or cut off|no pixel data|cannot be decoded"),
        ("gone", "not found"),
        ("no pixels", "no pixel data"),
        ("no patient", "no patient id"),
        ("frames", "multi-frame"),
        ("bad syntax", "cannot be decoded"),
        ("bad window", r"VOI LUT Function \(0028,1056\)"),
    ],
)
def test_a_broken_file_is_listed_and_the_others_are_read(folder: Path, kind: str, reason: str) -> None:
    whole = len(read(folder))
    name = damage(folder, kind)
    entries = read(folder)
    skipped = [entry for entry in entries if isinstance(entry, Skipped)]
    assert [entry.reference for entry in skipped] == [name]
    assert re.search(reason, skipped[0].reason)
    assert len(entries) == whole


def test_table_and_folder_that_disagree(folder: Path) -> None:
    table = folder / "labels.csv"
    rows = table.read_text().splitlines()
    first, second = rows[1].split(",")[0], rows[2].split(",")[0]
    table.write_text(
        "\n".join([rows[0], rows[1], rows[1], f"{second},tumour", "../x.dcm,normal", "/etc/hosts,normal", ",normal"])
    )
    skipped = {entry.reference: entry.reason for entry in read(folder) if isinstance(entry, Skipped)}
    assert "twice" in skipped[first]
    assert "label" in skipped[second]
    assert "out of the folder" in skipped["../x.dcm"]
    assert "out of the folder" in skipped["/etc/hosts"]
    unlisted = [name for name, reason in skipped.items() if "no row" in reason]
    assert len(unlisted) == len(list(folder.glob("*.dcm"))) - 2
    assert "labels.csv" not in skipped


def test_reasons_hold_no_patient_values(folder: Path) -> None:
    for kind in ("no pixels", "frames"):
        damage(folder, kind)
    text = " ".join(entry.reason for entry in read(folder) if isinstance(entry, Skipped))
    assert "PHANTOM" not in text
    assert "P0001" not in text


@pytest.mark.parametrize("content", [None, "name,label\na,b\n", "file,label\n", b"\xff\xfe\x00\x00bad"])
def test_unreadable_table_is_one_clear_line(folder: Path, content: str | bytes | None) -> None:
    table = folder / "labels.csv"
    if content is None:
        table.unlink()
    else:
        table.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"labels\.csv") as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_unreadable_folder_is_one_clear_line(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nx,normal\n")
    with pytest.raises(DataError, match="absent"):
        next(read_dicom(tmp_path / "absent", table, FORM, LABELS))


@pytest.mark.shared
def test_every_file_of_the_collection_is_read_or_listed(tmp_path: Path) -> None:
    collection = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
    if not collection.exists():
        pytest.skip("the medical test collection is not beside this checkout")
    with (collection / "table.csv").open(encoding="utf-8") as stream:
        facts = {row["file"]: row for row in csv.DictReader(stream)}
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{name},normal\n" for name in facts))
    others = ["CT", "MR", "NM", "PT", "US", "SM", "burned-in"]
    read = read_dicom(collection, table, FORM, LABELS, allow=others, text="allow")
    entries = dict(zip(facts, read, strict=False))
    assert set(entries) == set(facts)
    for name, entry in entries.items():
        row = facts[name]
        single = row["frames"] in ("", "1") and row["patient_id"] != ""
        if isinstance(entry, Skipped):
            assert not (row["decode"].startswith("ok") and single), (name, entry.reason)
        else:
            assert row["decode"].startswith("ok"), name
            assert single, name
            assert entry.pixels.min() < entry.pixels.max(), name
    for name in ("dx_thorax_mono1_8bit.dcm", "phi_cr_chest_mono1_rle.dcm", "cr_extremity_mono1_10bit_j2k_lossy.dcm"):
        entry = entries[name]
        assert isinstance(entry, SiteImage)
        # MONOCHROME1: what is stored high is shown dark
        stored = pydicom.dcmread(collection / name).pixel_array
        shown = entry.pixels.astype(float).ravel()
        assert np.corrcoef(fit_square(stored.max() - stored.astype(float), 64).ravel(), shown)[0, 1] > 0.5, name
    lung = entries["phi_cr_chest_mono1_rle.dcm"]
    assert isinstance(lung, SiteImage)
    assert lung.pixels[22:34, 16:24].mean() < lung.pixels[24:40, 30:34].mean() - 10  # lung darker than mediastinum

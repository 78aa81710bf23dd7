"""The written cohort: real DICOM with a full fictional header, the same bytes every time."""

from __future__ import annotations

import csv
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest

from sfumato_common.errors import ConfigError
from sfumato_common.phantom import DEVICES, draw_patient
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.phantom.headers import stored_values


def _read_all(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_files_carry_header_and_pixels(tmp_path: Path, name: str) -> None:
    device = DEVICES[name]
    write_cohort(tmp_path / "c", "north", 6, 1, name)
    datasets = _read_all(tmp_path / "c")
    assert {str(d.PatientID) for d in datasets} == {f"north-P{n:04d}" for n in range(1, 7)}
    for dataset in datasets:
        assert str(dataset.PatientName).startswith("PHANTOM^P")
        assert "PHANTOM" in dataset.InstitutionName
        assert "PHANTOM" in str(dataset.ReferringPhysicianName)
        assert dataset.PatientSex in "MF"
        assert dataset.AccessionNumber
        born = date(
            int(dataset.PatientBirthDate[:4]), int(dataset.PatientBirthDate[4:6]), int(dataset.PatientBirthDate[6:])
        )
        seen = date(int(dataset.StudyDate[:4]), int(dataset.StudyDate[4:6]), int(dataset.StudyDate[6:]))
        age = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
        assert dataset.PatientAge == f"{age:03d}Y"
        assert dataset.PhotometricInterpretation == device.photometric
        assert (dataset.BitsStored, dataset.BitsAllocated) == (device.bits_stored, 16)
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
        stored = dataset.pixel_array
        assert stored.shape == (device.rows, device.columns)
        assert device.stored_low <= stored.min()
        assert stored.max() <= device.stored_high < 2**device.bits_stored
    for uid in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        values = [dataset[uid].value for dataset in datasets]
        assert len(set(values)) == len(values)
        assert all(value.is_valid for value in values)


def test_tags_ascend_and_nothing_is_written_twice(tmp_path: Path) -> None:
    write_cohort(tmp_path, "north", 1, 1, "aurora")
    tags = [int(element.tag) for element in _read_all(tmp_path)[0]]
    assert tags == sorted(set(tags))


def test_same_bytes_every_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_cohort(tmp_path / folder, "north", 4, 9, "cirrus")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_labels_table_lists_every_file(tmp_path: Path) -> None:
    write_cohort(tmp_path, "north", 8, 1, "borealis")
    with (tmp_path / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["file"] for row in rows} == {path.name for path in tmp_path.glob("*.dcm")}
    expected = [
        ("normal", "opacity")[v] for n in range(1, 9) for v in draw_patient(1, "north", n, DEVICES["borealis"]).labels
    ]
    assert [row["label"] for row in rows] == expected


def test_monochrome1_stores_white_low() -> None:
    ramp = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    inverted, plain = stored_values(ramp, DEVICES["cirrus"]), stored_values(ramp, DEVICES["aurora"])
    assert inverted[0, 0] == DEVICES["cirrus"].stored_high
    assert inverted[-1, -1] == DEVICES["cirrus"].stored_low
    assert plain[0, 0] == DEVICES["aurora"].stored_low
    assert plain[-1, -1] == DEVICES["aurora"].stored_high


def test_unknown_device_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="aurora"):
        write_cohort(tmp_path / "c", "north", 1, 1, "polaroid")
    assert not (tmp_path / "c").exists()


def test_command_line_writes_the_same_cohort(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sfumato_common.phantom",
        str(tmp_path / "a"),
        "--site",
        "north",
        "--patients",
        "2",
    ]
    subprocess.run([*command, "--seed", "5", "--device", "borealis"], check=True, timeout=60)
    write_cohort(tmp_path / "b", "north", 2, 5, "borealis")
    for path in (tmp_path / "b").iterdir():
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()

"""The index of real images: what is read, and one clear error for each thing that is wrong with it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato_common.errors import ConfigError, DataError
from sfumato_common.study.terms import ImageForm
from sfumato_server.evaluate.encoders import read_encoders
from sfumato_server.evaluate.index import ALIASES, read_real
from sfumato_server.evaluate.pictures import Pictures
from sfumato_server.evaluate.reading import Reading

LABELS, FORM = ("normal", "abnormal"), ImageForm(size=16)
Rows = list[dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 20, 20), dtype=np.uint8)
    np.savez(tmp_path / "films.npz", images=images)
    for at, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{at}.png")
    return tmp_path


def rows_of(**changes: Callable[[int], str]) -> Rows:
    """90 images of 45 patients: 20 train, 5 val, 20 test."""
    said: dict[str, Callable[[int], str]] = {
        "file": lambda at: f"{at}.png",
        "label": lambda at: LABELS[at // 2 % 2],
        "patient": lambda at: f"p{at // 2}",
        "split": lambda at: "train" if at < 40 else "val" if at < 50 else "test",
        **changes,
    }
    return [{name: value(at) for name, value in said.items()} for at in range(90)]


def written(folder: Path, rows: Rows, name: str = "index.csv") -> Path:
    with (folder / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def changed(at: int, values: Mapping[str, str]) -> Rows:
    rows = rows_of()
    rows[at] |= values
    return rows


def test_files_and_rows_of_archives_are_the_same_images_in_the_sets_form(folder: Path) -> None:
    files = read_real(written(folder, rows_of()), LABELS, FORM, "test")
    rows = [{**row, "set": "films", "row": str(at)} for at, row in enumerate(rows_of())]
    archive = read_real(
        written(folder, [{k: v for k, v in row.items() if k != "file"} for row in rows]), LABELS, FORM, "test"
    )
    assert np.array_equal(files.test.pixels, archive.test.pixels)
    assert files.train.pixels.shape == (40, 16, 16) and files.train.pixels.dtype == np.uint8
    assert files.train.people() == files.test.people() == 20 and files.seen.people() == 25
    assert files.test.labels.tolist() == archive.test.labels.tolist() == [at // 2 % 2 for at in range(50, 90)]


def test_the_index_of_the_demo_is_one(folder: Path) -> None:
    names = {"label": "abnormal", "patient": "patient_id"}
    rows = rows_of(site=lambda at: "ab"[at // 2 % 2], label=lambda at: str(at // 2 % 2))
    rows = [
        {names.get(k, k): v for k, v in row.items() if k != "file"} | {"set": "films", "row": str(at)}
        for at, row in enumerate(rows)
    ]
    found = read_real(written(folder, rows), LABELS, FORM, "test")
    assert found.test.labels.tolist() == [at // 2 % 2 for at in range(50, 90)]
    assert set(found.test.groups) == {"site"} and set(found.test.groups["site"]) == {"a", "b"}


def test_sex_and_age_become_groups_and_what_is_not_known_is_empty(folder: Path) -> None:
    rows = rows_of(sex=lambda at: ("F", "male", "")[at % 3], age=lambda at: ("17", "045Y", "", "70.5")[at % 4])
    test = read_real(written(folder, rows), LABELS, FORM, "test").test
    assert set(test.groups["sex"]) == {"female", "male", ""}
    assert set(test.groups["age"]) == {"0 to 17", "40 to 64", "", "65 and older"}


def test_the_same_number_at_two_sites_is_two_patients(folder: Path) -> None:
    rows = rows_of(site=lambda at: "b" if at >= 50 else "a", patient=lambda at: f"p{at // 2 % 25}")
    assert read_real(written(folder, rows), LABELS, FORM, "test").test.people() == 20


def test_validation_patients_may_have_trained_a_study_unless_they_are_the_tested_ones(folder: Path) -> None:
    rows = rows_of(split=lambda at: "train" if at < 40 else "Validation" if at < 80 else "holdout")
    found = read_real(written(folder, rows), LABELS, FORM, "val")
    assert found.seen.people() == 20 and found.test.people() == 20


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (rows_of(sexe=lambda at: "F"), "has a column 'sexe' that nothing reads; is 'sex' meant"),
        (rows_of(patient_id=lambda at: "p"), "says one thing in two columns, 'patient' and 'patient_id'"),
        ([{k: v for k, v in row.items() if k != "patient"} for row in rows_of()], "it has no patient, in a column"),
        ([{k: v for k, v in row.items() if k != "file"} for row in rows_of()], "has to name images by a column 'file'"),
        (rows_of(set=lambda at: "films", row=str), "has to name images by a column 'file'"),
        (changed(3, {"label": "opacity"}), "'index.csv', image 4: its label 'opacity' is none of the set's: normal"),
        (changed(3, {"label": "2"}), "its label '2' is none"),
        (changed(3, {"split": "fold1"}), "image 4: its split 'fold1' is none of train, val, test"),
        (changed(3, {"patient": ""}), "image 4: it has no patient"),
        (changed(60, {"patient": "p0"}), "1 patients have images in 'test' and in another split"),
        (changed(3, {"file": "gone.png"}), "image 4: 'gone.png' is not there"),
        (changed(3, {"file": "films.npz"}), "image 4: 'films.npz' is no PNG, JPEG, TIFF or DICOM"),
        (rows_of(sex=lambda at: "x"), "image 1: its sex 'x' is none of F, M, other"),
        (rows_of(age=lambda at: "old"), "image 1: its age 'old' is no number of years"),
        (rows_of(split=lambda at: "train"), "has no images of the split 'test'"),
        (
            rows_of(patient=lambda at: f"p{at // 8}", split=lambda at: "train" if at < 48 else "test"),
            "6 patients in the split 'train'",
        ),
        (rows_of(label=lambda at: "normal"), "no image of the split 'train' has the label 'abnormal'"),
    ],
)
def test_what_is_wrong_is_one_clear_error(folder: Path, rows: Rows, said: str) -> None:
    with pytest.raises(DataError) as found:
        read_real(written(folder, rows), LABELS, FORM, "test")
    assert said in str(found.value) and "\n" not in str(found.value)


def test_a_column_may_be_ignored_by_name(folder: Path) -> None:
    path = written(folder, rows_of(Comment=lambda at: "x"))
    assert len(read_real(path, LABELS, FORM, "test", Reading(ignored=["comment"])).test) == 40


def test_rows_that_an_archive_lacks_and_archives_that_are_not_there_are_said(folder: Path) -> None:
    rows: Rows = [{**{k: v for k, v in row.items() if k != "file"}, "set": "films", "row": "90"} for row in rows_of()]
    with pytest.raises(DataError, match=r"image 1: row '90' is not in 'films.npz', which has rows 0 to 89"):
        read_real(written(folder, rows), LABELS, FORM, "test")
    for row in rows:
        row |= {"set": "plates", "row": "0"}
    with pytest.raises(DataError, match=r"'plates.npz' is not there"):
        read_real(written(folder, rows), LABELS, FORM, "test")


def test_pictures_are_shown_by_the_bits_that_they_hold_and_in_the_sets_colours(tmp_path: Path) -> None:
    grey = np.linspace(0, 4095, 256).reshape(16, 16).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "twelve.png")
    Image.fromarray((grey // 16).astype(np.uint8)).save(tmp_path / "eight.tif")
    pictures = Pictures(tmp_path, FORM)
    shown = [pictures.of_file(name).astype(int) for name in ("twelve.png", "eight.tif")]
    assert shown[0].max() == 255 and np.abs(shown[0] - shown[1]).max() <= 1
    colour = Pictures(tmp_path, ImageForm(size=16, channels=3)).of_file("eight.tif")
    assert colour.shape == (16, 16, 3) and np.array_equal(colour[..., 0], colour[..., 2])
    turned = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    exif: Any = turned.getexif()
    exif[0x0112] = 3
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(pictures.of_file("turned.png"), np.arange(256, dtype=np.uint8).reshape(16, 16)[::-1, ::-1])


def test_an_encoder_is_a_built_in_name_or_a_file_of_terms(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes efficientnet-lite0, or a YAML file"):
        read_encoders(["inception"])
    terms = "{file: weights.pth, sha256: %s, architecture: %s, trained_on: ImageNet}"
    (tmp_path / "maps.yaml").write_text(terms % ("ab" * 32, "vgg19-conv1"))
    with pytest.raises(ConfigError, match="its features keep their place"):
        read_encoders([str(tmp_path / "maps.yaml")])
    (tmp_path / "net.yaml").write_text(terms % ("ab" * 32, "resnet18"))
    with pytest.raises(Exception, match="not in the folder of encoders"):
        read_encoders([str(tmp_path / "net.yaml")])


def test_no_alias_means_two_things() -> None:
    words = [word for aliases in ALIASES.values() for word in aliases]
    assert len(words) == len(set(words))

"""A researcher's own DICOM files: the very pixels that a site would read, headers, and one clear error each."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.dicoms import make, save
from support.reading import read_dicom

from sfumato_client.ingest import SiteImage
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.study.terms import ImageForm
from sfumato_server.evaluate import films
from sfumato_server.evaluate.films import is_film, read_film
from sfumato_server.evaluate.index import read_real
from sfumato_server.evaluate.reading import Reading, meaning_of
from sfumato_server.workers import Where

COLLECTION = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
LABELS, FORM = ("normal", "abnormal"), ImageForm(size=64)
OTHERS = ["CT", "MR", "NM", "US", "PT", "SM", "burned-in", "scanned", "for-processing"]
MEANT = meaning_of(["opacity=abnormal"])


def table(folder: Path, rows: list[dict[str, str]], name: str = "index.csv") -> Path:
    with (folder / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


@pytest.mark.shared
@pytest.mark.parametrize("form", [FORM, ImageForm(size=32, bits=16), ImageForm(size=32, channels=3)], ids=str)
def test_real_files_are_the_pixels_that_a_site_reads_and_what_a_site_refuses_is_refused(
    tmp_path: Path, form: ImageForm
) -> None:
    if not COLLECTION.exists():
        pytest.skip("the medical test collection is not there")
    names = sorted(path.name for path in COLLECTION.glob("*.dcm"))
    rows = table(tmp_path, [{"file": name, "patient_id": f"p{at}", "label": "normal"} for at, name in enumerate(names)])
    site = {"allow": OTHERS, "frames": "first", "text": "allow"}
    read = {}
    for one in read_dicom(COLLECTION, rows, form, list(LABELS), **site):
        read[one.facts.reference if isinstance(one, SiteImage) else one.reference] = one
    taken = 0
    for name in names:
        of_site = read[name]
        allowed = [word.upper() for word in OTHERS]
        frames = pydicom.dcmread(COLLECTION / name, force=True, stop_before_pixels=True).get("NumberOfFrames") or 1
        if isinstance(of_site, SiteImage):
            pixels, _ = read_film(COLLECTION / name, "1" if int(frames) > 1 else "", form, allowed)
            np.testing.assert_array_equal(pixels, of_site.pixels, name)
            assert pixels.dtype == of_site.pixels.dtype
            taken += 1
        else:
            with pytest.raises(DataError) as found:
                read_film(COLLECTION / name, "1" if int(frames) > 1 else "", form, allowed)
            assert of_site.reason in str(found.value), name
    assert 40 <= taken < len(names), "both kinds are among them"


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """60 phantom patients as a hospital's folder with its table `file,label`, patients in headers."""
    write_cohort(tmp_path / "own", "north", 50, 1, "cirrus", size=80)
    return tmp_path / "own"


def test_a_sites_own_folder_and_table_are_an_index(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes((cohort / "labels.csv").read_bytes())
    reading = Reading(folder=cohort, meaning=MEANT, holdout=0.5)
    real = read_real(tmp_path / "labels.csv", LABELS, FORM, "test", reading)
    site = [
        one for one in read_dicom(cohort, cohort / "labels.csv", FORM, ["normal", "opacity"]) if hasattr(one, "pixels")
    ]
    assert real.train.people() == real.test.people() == 25 and real.seen is not real.test
    both = [
        (tuple(image.ravel()), label)
        for part in (real.train, real.test)
        for image, label in zip(part.pixels, part.labels, strict=True)
    ]
    assert sorted(both) == sorted((tuple(one.pixels.ravel()), one.label) for one in site)
    # sex and age are the headers'
    assert set(real.test.groups) >= {"sex"} and set(real.test.groups["sex"]) <= {"female", "male", "other", ""}


@pytest.mark.slow
def test_processes_read_the_same(cohort: Path) -> None:
    one, two = (
        read_real(
            cohort / "labels.csv", LABELS, FORM, "test", Reading(meaning=MEANT, holdout=0.5, where=Where(workers))
        )
        for workers in (1, 2)
    )
    assert np.array_equal(one.test.pixels, two.test.pixels) and np.array_equal(one.train.pixels, two.train.pixels)
    assert np.array_equal(one.test.patients, two.test.patients)


def test_what_the_index_says_of_a_patient_counts_before_the_header(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for at in range(80):
        shown = make(rng.integers(0, 4096, (40, 40)).astype(np.uint16), bits=12, PatientSex="F", PatientAge="045Y")
        save(shown, tmp_path / f"{at}.dcm", "anonymised")
        split = "train" if at < 40 else "test"
        said = {"label": LABELS[at % 2], "patient": f"p{at}", "split": split, "sex": "M" if at % 2 else ""}
        rows.append({"file": f"{at}.dcm", **said})
    test = read_real(table(tmp_path, rows), LABELS, FORM, "test").test
    assert test.people() == 40 and test.groups["sex"].tolist() == ["female", "male"] * 20
    assert set(test.groups["age"]) == {"40 to 64"}
    # one word for all patients is one patient, and never trains and tests
    with pytest.raises(DataError, match="1 patients have images in 'test' and in another split"):
        read_real(
            table(tmp_path, [{k: v for k, v in row.items() if k != "patient"} for row in rows]), LABELS, FORM, "test"
        )


def test_the_frames_of_one_file_are_rows(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (80, 20, 20), dtype=np.uint8)
    many = make(frames[0], NumberOfFrames=80)
    many.PixelData = frames.tobytes()
    save(many, tmp_path / "many.dcm")
    rows = [
        {"file": "many.dcm", "frame": str(at + 1), "label": LABELS[at % 2], "patient": f"p{at}",
         "split": "train" if at < 40 else "test"}
        for at in range(80)
    ]  # fmt: skip
    real = read_real(table(tmp_path, rows), LABELS, ImageForm(size=20), "test")
    ranges = [frame.astype(float) for frame in frames[40:]]
    shown = [(frame - frame.min()) / (frame.max() - frame.min()) * 255 for frame in ranges]
    np.testing.assert_allclose(real.test.pixels, np.rint(shown), atol=1)
    wrong = {"": "write a column 'frame' in the index, 1 to 80", "81": "it has no frame '81'", "0": "has no frame"}
    for frame, said in wrong.items():
        with pytest.raises(DataError, match=said):
            read_film(tmp_path / "many.dcm", frame, FORM, ())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-900])


def _of_ct(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.Modality, dataset.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.2"
    dataset.save_as(path)


def _burned_in(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.BurnedInAnnotation = "YES"
    dataset.save_as(path)


def _blank(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(path)


def _nobody(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.PatientID = ""
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_text("<html>not found"), r"not a DICOM file .* an HTML page"),
        (_cut, r"Pixel Data \(7FE0,0010\)"),
        (_of_ct, "pass '--allow CT' to take such images"),
        (_burned_in, "pass '--allow burned-in' to take such images"),
        (_blank, "the image is blank"),
        (_nobody, "it has no patient, in a column 'patient' or in a DICOM header"),
        (Path.unlink, "is not there; files stand where the index says, from its own folder or --folder on"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_clear_error(cohort: Path, harm: Callable[[Path], None], said: str) -> None:
    rows = list(csv.DictReader((cohort / "labels.csv").open()))
    harm(cohort / rows[3]["file"])
    with pytest.raises(DataError, match=said) as found:
        read_real(cohort / "labels.csv", LABELS, FORM, "test", Reading(meaning=MEANT, holdout=0.5))
    assert "'labels.csv', image 4: " in str(found.value) and "\n" not in str(found.value)


def test_all_files_are_read_before_the_wrong_ones_are_said(cohort: Path) -> None:
    rows = list(csv.DictReader((cohort / "labels.csv").open()))
    for row in rows[:7]:
        (cohort / row["file"]).write_text("x")
    with pytest.raises(DataError, match=rf"^7 of {len(rows)} images cannot be read: .*image 5: .*; and 2 others$"):
        read_real(cohort / "labels.csv", LABELS, FORM, "test", Reading(meaning=MEANT, holdout=0.5))


def test_words_mean_labels_of_the_set_and_images_may_be_left_out(cohort: Path) -> None:
    rows = list(csv.DictReader((cohort / "labels.csv").open()))
    rows[0]["label"] = "other"
    path = table(cohort, rows, "words.csv")
    with pytest.raises(DataError, match=r"image 1: its label 'other' is none .* --map 'other=LABEL'"):
        read_real(path, LABELS, FORM, "test", Reading(meaning=MEANT, holdout=0.5))
    left = read_real(path, LABELS, FORM, "test", Reading(meaning=MEANT | meaning_of(["Other="]), holdout=0.5))
    assert len(left.train) + len(left.test) == len(rows) - 1
    with pytest.raises(ConfigError, match="--map 'opacity=opaque': the set's labels are normal, abnormal"):
        read_real(path, LABELS, FORM, "test", Reading(meaning=meaning_of(["opacity=opaque"]), holdout=0.5))
    for pair, said in (("opacity", "write WORD=LABEL"), ("=normal", "write WORD=LABEL")):
        with pytest.raises(ConfigError, match=said):
            meaning_of([pair])
    with pytest.raises(ConfigError, match="two meanings"):
        meaning_of(["a=normal", "A="])


def test_an_index_without_a_split_says_what_to_do_and_one_with_a_split_takes_no_share(cohort: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'split'.*--holdout 0\.5"):
        read_real(cohort / "labels.csv", LABELS, FORM, "test", Reading(meaning=MEANT))
    rows = [{**row, "split": "train"} for row in csv.DictReader((cohort / "labels.csv").open())]
    with pytest.raises(DataError, match="leave out --holdout"):
        read_real(table(cohort, rows, "split.csv"), LABELS, FORM, "test", Reading(meaning=MEANT, holdout=0.5))


def test_without_the_extra_it_says_what_to_install(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "find_spec", lambda name: None if name == "imagecodecs" else object())
    with pytest.raises(ConfigError, match=r"DICOM files need imagecodecs: pip install 'sfumato-coordinator\[dicom\]'"):
        read_real(cohort / "labels.csv", LABELS, FORM, "test", Reading(meaning=MEANT, holdout=0.5))


def test_a_file_is_taken_for_dicom_by_what_it_is(cohort: Path) -> None:
    name = next(csv.DictReader((cohort / "labels.csv").open()))["file"]
    assert is_film((cohort / name).read_bytes()[:132], "IM0001")
    assert is_film(b"\x08\x00\x05\x00", "IM0001") and is_film(b"", "a.DCM")
    assert not is_film(b"\x89PNG\r\n\x1a\n" + bytes(124), "a.png")

"""Files in a zip, and those that a DICOMDIR names: read where they are, bounded, and nothing out of its place."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian
from support.dicoms import make, save
from support.reading import read_dicom, read_images

from sfumato_client.ingest import SiteImage, Skipped
from sfumato_client.ingest.folders import folder_of
from sfumato_client.ingest.pool import Pool
from sfumato_client.ingest.sources import DicomSource, ImagesSource, read_rows
from sfumato_common.errors import DataError
from sfumato_common.study.terms import ImageForm

FORM, LABELS = ImageForm(size=32), ["normal", "opacity"]


def png(value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((np.arange(48 * 48).reshape(48, 48) % 200 + value).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def zipped(tmp_path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def table(tmp_path: Path, *names: str) -> Path:
    path = tmp_path / "labels.csv"
    rows = [f"{name},p{number},{LABELS[number % 2]}" for number, name in enumerate(names)]
    path.write_text("\n".join(["file,patient_id,label", *rows]) + "\n")
    return path


def dicom_bytes(tmp_path: Path, number: int = 0, preamble: bool = True) -> bytes:
    path = save(make(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) + number), tmp_path / "one.dcm")
    data = path.read_bytes()
    path.unlink()
    return data if preamble else data[132:]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_files_of_a_zip_are_read_as_those_of_a_folder(tmp_path: Path, method: int) -> None:
    files = {"a/one.dcm": dicom_bytes(tmp_path), "two.dcm": dicom_bytes(tmp_path, 7, preamble=False)}
    archive, rows = zipped(tmp_path, files, method), table(tmp_path, *files)
    folder = tmp_path / "plain"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    packed, plain = (list(read_dicom(place, rows, FORM, LABELS)) for place in (archive, folder))
    for one, other in zip(packed, plain, strict=True):
        assert isinstance(one, SiteImage) and isinstance(other, SiteImage)
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.patient_id, one.label, one.facts) == (other.patient_id, other.label, other.facts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "plain", "scans.zip"], "nothing unpacked"


def test_a_zip_is_read_by_readers_processes_and_unlisted_entries_are_named(tmp_path: Path) -> None:
    archive = zipped(tmp_path, {"a.png": png(), "b.png": png(1), "c.png": png(2), "__MACOSX/._a.png": b"x"})
    source = ImagesSource(kind="images", folder=archive, labels=table(tmp_path, "a.png", "b.png"))
    with Pool(source, FORM, LABELS, 1) as pool:
        found = [one for results in read_rows(source, FORM, LABELS, pool.run) for one in results]
    assert [type(one) for one in found] == [SiteImage, SiteImage, Skipped]
    assert isinstance(found[2], Skipped) and found[2].reference == "c.png"


def test_names_that_lead_out_of_an_archive_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    names = ("../secret.png", "/secret.png", "a/../../secret.png")
    archive = zipped(tmp_path, {name: png() for name in names})
    found = list(read_images(archive, table(tmp_path, *names, "..\\secret.png"), FORM, LABELS))
    assert all(isinstance(one, Skipped) for one in found)
    assert (tmp_path / "secret.png").read_bytes() == png()


def test_names_with_backslashes_are_found(tmp_path: Path) -> None:
    archive = zipped(tmp_path, {"a\\one.png": png(), "b/two.png": png(1)})
    found = list(read_images(archive, table(tmp_path, "a/one.png", "b\\two.png"), FORM, LABELS))
    assert all(isinstance(one, SiteImage) for one in found)


def test_bombs_nested_zips_and_damage_are_reasons_of_single_files(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as nested:
        nested.writestr("a.png", png())
    files = {"good.png": png(), "bomb.png": bytes(2**25), "nested.zip": inner.getvalue(), "bad.png": png(3) * 4}
    archive = zipped(tmp_path, files)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo("bad.png")
    data[info.header_offset + 60] ^= 0xFF
    archive.write_bytes(data)
    found = {one.reference: one.reason for one in read_images(archive, table(tmp_path, *files), FORM, LABELS)
             if isinstance(one, Skipped)}  # fmt: skip
    assert "packed so tightly" in found.pop("bomb.png")
    assert "zip within a zip" in found.pop("nested.zip")
    assert "damaged" in found.pop("bad.png")
    assert not found


def test_a_header_that_understates_its_size_unpacks_to_no_more(tmp_path: Path) -> None:
    archive = zipped(tmp_path, {"a.png": png() + bytes(2**22)})
    data = bytearray(archive.read_bytes())
    place = data.rfind(b"PK\x01\x02")
    data[place + 24 : place + 28] = (100).to_bytes(4, "little")
    archive.write_bytes(data)
    (found,) = read_images(archive, table(tmp_path, "a.png"), FORM, LABELS)
    assert isinstance(found, Skipped)


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", png(9))
    (found,) = read_images(path, table(tmp_path, "a.png"), FORM, LABELS)
    assert isinstance(found, Skipped)
    assert "two files of this name" in found.reason


def test_a_password_and_what_is_no_zip_are_one_sentence(tmp_path: Path) -> None:
    archive = zipped(tmp_path, {"a.png": png()})
    whole = archive.read_bytes()
    data = bytearray(whole)
    for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + flag] |= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match="protected by a password; unpack it"):
        list(read_images(archive, table(tmp_path, "a.png"), FORM, LABELS))
    for broken in (b"no zip at all", whole[: len(whole) // 2], b""):
        archive.write_bytes(broken)
        with pytest.raises(DataError, match="no zip, or is cut off"):
            list(read_images(archive, table(tmp_path, "a.png"), FORM, LABELS))


def test_a_zip_whose_directory_lost_a_name_is_damaged(tmp_path: Path) -> None:
    archive = zipped(tmp_path, {"a.png": png()})
    # found by the fuzz: zipfile reads a name up to its first zero, and stumbles at the empty one
    archive.write_bytes(archive.read_bytes().replace(b"a.png", b"\0.png"))
    with pytest.raises(DataError, match="lists a file without a name: it is damaged; copy it again"):
        list(read_images(archive, table(tmp_path, "a.png"), FORM, LABELS))


def test_another_archive_is_told_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "scans.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="neither a folder nor a"):
        list(read_images(tmp_path / "scans.tar.gz", table(tmp_path, "a.png"), FORM, LABELS))


def test_of_an_archive_that_changed_only_other_entries_are_read_anew(tmp_path: Path) -> None:
    archive = zipped(tmp_path, {"a.png": png(), "b.png": png(1)})
    before = [folder_of(archive).state_of(name) for name in ("a.png", "b.png", "c.png")]
    zipped(tmp_path, {"a.png": png(), "b.png": png(2), "d.png": png(3)})
    after = [folder_of(archive).state_of(name) for name in ("a.png", "b.png", "c.png")]
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert before[2] == after[2] == (-1, 0)


def test_a_report_that_changed_has_everything_read_anew(tmp_path: Path) -> None:
    from support.plans import small_plan

    from sfumato_client.site.described import Described
    from sfumato_common.strict import parse
    from sfumato_common.study.plan import Plan

    plan = parse(small_plan(released="spectral", sites={"alder": 100}), Plan, "plan")
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "one.dcm").write_bytes(b"one")
    said = {"kind": "dicom", "folder": str(tmp_path), "labels": str(table(tmp_path, "a.dcm"))}
    value = {**said, "label_from": {"sr": {"code": "1", "scheme": "2", "folder": str(reports)}}}
    source = parse(value, DicomSource, "source")
    described = Described(source, plan)
    before = described.about
    assert Described(source, plan).about == before
    (reports / "one.dcm").write_bytes(b"another")
    assert Described(source, plan).about != before
    shutil.rmtree(reports)
    assert "reports" in described.settings, "one walk serves both"


def medium(tmp_path: Path) -> tuple[Path, list[Dataset]]:
    """A folder with a DICOMDIR and three radiographs under names of eight letters."""
    single, images = tmp_path / "single", list[Dataset]()
    single.mkdir()
    files = FileSet()
    for number in range(3):
        dataset = make(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) + number)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.826.0.1.{number}", f"1.2.826.0.1.{number}.1"
        dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "20200101", "100000", "1", "1"
        dataset.SeriesNumber, dataset.InstanceNumber, dataset.PatientName = 1, number + 1, "Phantom"
        save(dataset, single / f"{number}.dcm", patient=f"q{number}")
        files.add(single / f"{number}.dcm")
        images.append(dataset)
    files.write(tmp_path / "cd")
    return tmp_path / "cd", images


def test_rows_may_name_files_of_a_medium_by_their_instance(tmp_path: Path) -> None:
    folder, images = medium(tmp_path)
    rows = tmp_path / "labels.csv"
    lines = [f"{image.SOPInstanceUID},{LABELS[number % 2]}" for number, image in enumerate(images[:2])]
    rows.write_text("\n".join(["SOPInstanceUID,label", *lines]) + "\n")
    found = list(read_dicom(folder, rows, FORM, LABELS, columns={"file": "SOPInstanceUID"}))
    assert [one.patient_id for one in found[:2] if isinstance(one, SiteImage)] == ["q0", "q1"]
    (left,) = found[2:]
    assert isinstance(left, Skipped) and "DICOMDIR" not in left.reference, "the third image; the directory is none"


@pytest.mark.parametrize("zip_it", [False, True])
def test_a_medium_may_be_packed_and_its_names_may_have_changed_their_letters(tmp_path: Path, zip_it: bool) -> None:
    folder, images = medium(tmp_path)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    small = {name if name == "DICOMDIR" else name.lower(): data for name, data in files.items()}
    place = tmp_path / "scans.zip" if zip_it else tmp_path / "copied"
    if zip_it:
        zipped(tmp_path, small)
    for name, data in {} if zip_it else small.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    (found, *_) = read_dicom(place, table(tmp_path, str(images[0].SOPInstanceUID)), FORM, LABELS)
    assert isinstance(found, SiteImage)


def test_a_directory_that_leads_out_or_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "cd"
    folder.mkdir()
    (tmp_path / "OUT.dcm").write_bytes(dicom_bytes(tmp_path))
    record, directory = Dataset(), Dataset()
    record.ReferencedFileID, record.ReferencedSOPInstanceUIDInFile = ["..", "OUT.dcm"], "1.2.3.4.5"
    directory.DirectoryRecordSequence = [record]
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    rows = table(tmp_path, "1.2.3.4.5", "1.2.3.4.6")
    assert all(isinstance(one, Skipped) for one in read_dicom(folder, rows, FORM, LABELS))
    (folder / "DICOMDIR").write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(DataError, match="no DICOMDIR"):
        list(read_dicom(folder, rows, FORM, LABELS))


# labels that files and reports say


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def report(path: Path, study: str, *findings: Dataset) -> None:
    """A structured report of a study: findings lie one level below its root."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.88.22", f"{study}.9", "SR"
    dataset.StudyInstanceUID = study
    container = Dataset()
    container.ValueType, container.ContentSequence = "CONTAINER", list(findings)
    dataset.ContentSequence = [container]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def finding(concept: Dataset, **value: object) -> Dataset:
    item = Dataset()
    item.ConceptNameCodeSequence = [concept]
    for name, said in value.items():
        setattr(item, name, said)
    return item


FINDING = code("121071", "DCM", "Finding")


def images_of(tmp_path: Path, **elements: list[str]) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    count = len(next(iter(elements.values())))
    for number in range(count):
        dataset = make(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) + number)
        for name, values in elements.items():
            setattr(dataset, name, values[number])
        save(dataset, folder / f"{number}.dcm", patient=f"p{number}")
    (tmp_path / "labels.csv").write_text("file\n" + "".join(f"{number}.dcm\n" for number in range(count)))
    return folder


@pytest.mark.parametrize("tag", ["0008,103E", "(0008, 103e)", "SeriesDescription"])
def test_labels_come_from_an_element(tmp_path: Path, tag: str) -> None:
    said = ["Thorax clear", "Thorax PNEUMONIA", "", "Normal", "of nobody"]
    folder = images_of(tmp_path, SeriesDescription=said)
    words = {"thorax clear": "normal", "Thorax pneumonia": "opacity"}
    found = list(read_dicom(folder, tmp_path / "labels.csv", FORM, LABELS, label_from={"tag": tag}, map=words))
    assert [one.label if isinstance(one, SiteImage) else None for one in found] == [0, 1, None, 0, None]
    reasons = [one.reason for one in found if isinstance(one, Skipped)]
    assert reasons[0] == "it has no label: its Series Description (0008,103E) is empty"
    assert "of nobody" not in reasons[1]


def test_labels_come_from_the_reports_of_a_study(tmp_path: Path) -> None:
    studies = [f"1.2.826.7.{number}" for number in range(6)]
    folder = images_of(tmp_path, StudyInstanceUID=studies)
    pneumonia, clear = code("233604007", "SCT", "Pneumonia"), code("17621005", "SCT", "Normal")
    report(folder / "a.sr", studies[0], finding(FINDING, ConceptCodeSequence=[pneumonia]))
    report(folder / "b.sr", studies[1], finding(FINDING, ConceptCodeSequence=[clear]))
    report(folder / "c.sr", studies[2], finding(code("1", "99X", "Other"), TextValue="opacity"))
    both = [finding(FINDING, ConceptCodeSequence=[one]) for one in (clear, pneumonia)]
    report(folder / "d.sr", studies[3], *both)
    report(folder / "e.sr", studies[4], finding(FINDING, TextValue="opacity"))
    (folder / "f.sr").write_bytes(b"\x00" * 400)
    terms = {"label_from": {"sr": {"code": "121071", "scheme": "DCM"}}, "map": {"233604007": "opacity"}}
    source = DicomSource(kind="dicom", folder=folder, labels=tmp_path / "labels.csv", **terms)
    with Pool(source, FORM, LABELS, 1) as pool:
        found = [one for results in read_rows(source, FORM, LABELS, pool.run) for one in results][:6]
    assert [one.label if isinstance(one, SiteImage) else None for one in found] == [1, 0, None, None, 1, None]
    reasons = [one.reason for one in found if isinstance(one, Skipped)]
    assert "no structured report of its study" in reasons[0]
    assert "more than one" in reasons[1]
    assert "no structured report of its study" in reasons[2]


def test_a_table_without_labels_needs_them_in_the_files_and_the_reverse(tmp_path: Path) -> None:
    folder = images_of(tmp_path, SeriesDescription=["normal"])
    with pytest.raises(DataError, match="has no column 'label'"):
        list(read_dicom(folder, tmp_path / "labels.csv", FORM, LABELS))
    (tmp_path / "labels.csv").write_text("file,label\n0.dcm,normal\n")
    with pytest.raises(DataError, match="'label' that nothing reads"):
        list(read_dicom(folder, tmp_path / "labels.csv", FORM, LABELS, label_from={"tag": "SeriesDescription"}))


@pytest.mark.parametrize(
    ("value", "words"),
    [({}, "either 'tag' or 'sr'"), ({"tag": "a", "sr": {"code": "1", "scheme": "x"}}, "either"), ({"tga": "a"}, "tag")],
)
def test_label_from_is_strict(tmp_path: Path, value: dict, words: str) -> None:
    from sfumato_client.ingest import load_source
    from sfumato_common.errors import ConfigError

    text = {"kind": "dicom", "folder": "a", "labels": "b", "label_from": value}
    (tmp_path / "source.yaml").write_text(json.dumps(text))
    with pytest.raises(ConfigError, match=words):
        load_source(tmp_path / "source.yaml")


def test_a_misspelt_keyword_is_named_with_the_nearest(tmp_path: Path) -> None:
    from sfumato_common.errors import ConfigError

    folder = images_of(tmp_path, SeriesDescription=["normal"])
    with pytest.raises(ConfigError, match="is 'SeriesDescription' meant"):
        list(read_dicom(folder, tmp_path / "labels.csv", FORM, LABELS, label_from={"tag": "SeriesDescripton"}))

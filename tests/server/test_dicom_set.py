"""A set as DICOM: what the objects say, what validators say of them, and what a real PACS gives back."""

import io
import json
import shutil
import socket
import subprocess
import urllib.request
from base64 import b64encode

import numpy as np
import pydicom
import pytest
from dicom_validator.validator.dicom_file_validator import DicomFileValidator
from pydicom.pixels import apply_voi_lut
from support.dicom_tables import dicom_info
from support.orthanc import PASSWORD, USER, Orthanc, require_orthanc
from support.published import FORMS, published_set

from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.publish import convert, open_folder

KINDS = ("dicom", "dicom-multi-frame")
SHOWN = {
    "nothing": None,
    "chest": {"modality": "DX", "body_part": "CHEST", "view": "PA", "laterality": "U"},
    "eye": {"modality": "OP", "body_part": "EYE", "laterality": "R"},
}
CASES = [(form, shown) for form in FORMS for shown in SHOWN]
VERIFIER = shutil.which("dciodvfy")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Folders by (image form, what is shown, kind), and the published set of each."""
    made = {}
    for form, shown in CASES:
        folder = published_set(tmp_path_factory.mktemp("set"), shows=SHOWN[shown], **FORMS[form])
        for kind in KINDS:
            convert(folder, kind, folder.parent / kind)
            made[form, shown, kind] = (folder.parent / kind, folder)
    return made


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def case(request):
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def objects(folder):
    return sorted((folder / "dicom").rglob("*.dcm"))


def pixels_by_name(folder):
    return {image.entry.name: image.pixels for image in open_folder(folder).images()}


def test_objects_say_that_they_are_synthetic_and_nothing_of_a_source(converted, case, kind):
    out, folder = converted[(*case, kind)]
    shown = SHOWN[case[1]] or {"modality": "OT"}
    published = open_folder(folder)
    entries = {entry.name: (number, entry) for number, entry in enumerate(published.entries(), 1)}
    created = published.manifest.created.replace("-", "")
    uids = []
    for path in objects(out):
        found = pydicom.dcmread(path)
        number, entry = entries[found.PatientID]
        assert str(found.PatientName) == f"Synthetic^{number:06d}"
        assert (found.SyntheticData, found.ConversionType, found.BurnedInAnnotation) == ("YES", "SYN", "NO")
        assert list(found.ImageType) == ["DERIVED", "SECONDARY"] and found.PatientIdentityRemoved == "YES"
        assert list(found.DeidentificationMethod) == ["Synthetic image by dp-sampling", "guarantee: formal"]
        (maker,) = found.ContributingEquipmentSequence
        (purpose,) = maker.PurposeOfReferenceCodeSequence
        said = (purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning)
        assert said == ("109100", "DCM", "Synthesizing Equipment")
        assert found.SeriesDescription == f"Synthetic: {entry.label}"
        assert f"Label: {entry.label}. Site: {entry.site}." in found.ImageComments
        assert found.Modality == shown["modality"]
        for keyword, word in (
            ("BodyPartExamined", "body_part"),
            ("ViewPosition", "view"),
            ("ImageLaterality", "laterality"),
        ):
            assert found.get(keyword) == shown.get(word)
        dates = {element.value for element in found.iterall() if element.VR in ("DA", "DT", "TM")}
        assert dates == {created, ""}
        assert not [element for element in found.iterall() if element.tag.is_private]
        assert "LossyImageCompression" not in found
        own = [found.StudyInstanceUID, found.SeriesInstanceUID, found.SOPInstanceUID]
        assert all(uid.is_valid and uid.startswith("2.25.") for uid in own)
        uids += own
        for machine in (socket.gethostname().encode(), b"highdicom", str(out).encode()):
            assert machine not in path.read_bytes()
    assert len(set(uids)) == len(uids)


def test_a_file_is_what_pydicom_writes(converted, case, kind):
    """Objects are put together from encoded pieces: byte by byte as if pydicom had written them whole."""
    for path in objects(converted[(*case, kind)][0]):
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, pydicom.dcmread(path), enforce_file_format=True)
        assert stream.getvalue() == path.read_bytes()


def test_pixels_are_whole_and_a_viewer_shows_the_whole_range(converted, case, kind):
    out, folder = converted[(*case, kind)]
    wanted, seen = pixels_by_name(folder), 0
    for path in objects(out):
        found = pydicom.dcmread(path)
        names = (
            [found.PatientID]
            if kind == "dicom"
            else [
                next(name for name in wanted if name.startswith(label))
                for label in np.atleast_1d(found.FrameLabelVector)
            ]
        )
        frames = found.pixel_array if kind != "dicom" and len(names) > 1 else found.pixel_array[None]
        for name, frame in zip(names, frames, strict=True):
            assert frame.dtype == wanted[name].dtype and np.array_equal(frame, wanted[name])
            seen += 1
            if frame.ndim == 2:
                # PS3.3 C.11.2.1.2.1: black stays black, white white, and every grey where it was
                assert np.array_equal(np.rint(apply_voi_lut(frame, found)), frame)
    assert seen == len(wanted)


@pytest.mark.skipif(VERIFIER is None, reason="dciodvfy is not installed (package dicom3tools)")
def test_dciodvfy_finds_no_error(converted, case, kind):
    """Debian's is older than (0008,001C) Synthetic Data and does not know it: that one line is no error of ours."""
    out, _ = converted[(*case, kind)]
    for path in objects(out)[:3]:
        done = subprocess.run([VERIFIER, str(path)], capture_output=True, text=True, timeout=60, check=False)
        said = (done.stdout + done.stderr).splitlines()
        assert any("SCImage" in line for line in said), said
        errors = [line for line in said if "Error" in line and "(0x0008,0x001c)" not in line]
        assert not errors


def test_dicom_validator_finds_no_error(converted, case, kind):
    out, _ = converted[(*case, kind)]
    for path in objects(out)[:3]:
        (result,) = DicomFileValidator(dicom_info(), suppress_vr_warnings=False).validate(path).values()
        # a view is of modules of its own devices (CR, DX): the object is a Standard Extended SOP Class (PS3.4)
        found = {str(tag) for errors in result.module_errors.values() for tag in errors}
        assert result.errors == len(found) and found <= {"(0018,5101)"}


def test_the_validators_would_notice(converted, tmp_path):
    """Without its conversion type, an object of this class is wrong: both say so."""
    out, _ = converted["grey-8", "nothing", "dicom"]
    broken = pydicom.dcmread(objects(out)[0])
    del broken.ConversionType
    broken.save_as(tmp_path / "broken.dcm")
    (result,) = DicomFileValidator(dicom_info()).validate(tmp_path / "broken.dcm").values()
    assert result.errors == 1
    if VERIFIER is not None:
        done = subprocess.run([VERIFIER, str(tmp_path / "broken.dcm")], capture_output=True, text=True, timeout=60)
        assert "Error - Missing attribute Type 1 Required Element=<ConversionType>" in done.stdout + done.stderr


def test_the_same_image_of_another_set_is_another_object(converted):
    """A set's digest is in every UID: a later version of a set may say something else of an image."""
    one, other = (converted["grey-8", shown, "dicom"][0] for shown in ("nothing", "chest"))
    uids = [{str(pydicom.dcmread(path).SOPInstanceUID) for path in objects(out)} for out in (one, other)]
    assert not uids[0] & uids[1]


def test_a_plan_without_shows_keeps_its_digest(converted):
    _, folder = converted["grey-8", "nothing", "dicom"]
    values = open_folder(folder).plan.model_dump(mode="json")
    assert "shows" not in values
    shown = parse({**values, "shows": SHOWN["chest"]}, Plan, "plan")
    assert shown.digest != open_folder(folder).plan.digest


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    require_orthanc()
    server = Orthanc(tmp_path_factory.mktemp("orthanc"))
    server.start()
    yield server
    server.kill()


def get(server, path, accept):
    request = urllib.request.Request(f"http://127.0.0.1:{server.http}{path}")
    request.add_header("Authorization", "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode())
    request.add_header("Accept", accept)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


def test_a_pacs_takes_every_object_and_gives_the_same_pixels_back(converted, orthanc, case, kind):
    """By Orthanc's REST, frame by frame, and by DICOMweb, whole (PS3.18 10.4)."""
    out, folder = converted[(*case, kind)]
    wanted = pixels_by_name(folder)
    for path in objects(out):
        own = pydicom.dcmread(path)
        identifier = orthanc.rest("/instances", path.read_bytes())["ID"]
        labels = [own.PatientID] if kind == "dicom" else list(np.atleast_1d(own.FrameLabelVector))
        for frame, label in enumerate(labels):
            (name,) = (name for name in wanted if name.startswith(label))
            raw = get(orthanc, f"/instances/{identifier}/frames/{frame}/raw", "*/*")
            assert raw == wanted[name].astype(wanted[name].dtype.newbyteorder("<")).tobytes()
        web = f"/dicom-web/studies/{own.StudyInstanceUID}/series/{own.SeriesInstanceUID}/instances/{own.SOPInstanceUID}"
        body = get(orthanc, web, 'multipart/related; type="application/dicom"; transfer-syntax=*')
        begins = body.index(b"DICM") - 128
        back = pydicom.dcmread(io.BytesIO(body[begins : body.rindex(b"\r\n--")]))
        assert np.array_equal(back.pixel_array, own.pixel_array)
        found = json.loads(get(orthanc, f"{web}/metadata", "application/dicom+json"))[0]
        assert found["0008001C"]["Value"] == ["YES"] and found["00080064"]["Value"] == ["SYN"]

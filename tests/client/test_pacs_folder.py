"""What comes into `incoming` by a gateway's folder; its index; and the rules of the PACS room in its source."""

import ast
import csv
import json
import re
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread
from support.pacs import PATIENTS, home, objects, parts, say

from sfumato_client.pacs.classes import image_classes
from sfumato_client.pacs.incoming import Expected, Incoming, RejectedObjectError
from sfumato_client.pacs.multipart import BrokenAnswerError, boundary_of, write_part
from sfumato_client.pacs.query import Query, Study
from sfumato_client.pacs.settings import DicomWeb, load_pacs
from sfumato_client.pacs.watched import watch_folder
from sfumato_common.errors import DataError
from sfumato_common.phantom.dicom import write_cohort

__all__ = ["home", "say"]  # fixtures
ROOM = Path(__file__).resolve().parents[2] / "client" / "sfumato_client" / "pacs"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_cohort(folder, "alder", PATIENTS, 7, "aurora", size=96)
    return folder


@pytest.fixture
def incoming(tmp_path):
    with Incoming.open(tmp_path / "incoming", b"k" * 32, 10**6) as opened:
        yield opened


def test_a_folder_is_copied_whole_and_left_as_it_is(say, films, home, tmp_path):
    gateway = tmp_path / "gateway"
    shutil.copytree(films, gateway / "today")
    (gateway / "today" / ".hidden.dcm").write_bytes(b"not yet")
    first = next(films.glob("*.dcm"))
    (gateway / "cut.dcm").write_bytes(first.read_bytes()[:-50])
    (gateway / "link.dcm").symlink_to(first)
    before = {path: path.stat().st_mtime_ns for path in gateway.rglob("*")}
    words = ("sfumato-site", "pacs", "watch", gateway, "--home", home, "--once", "--settle", "0.2", "--json")
    code, line, said = say(*words)
    count = len(list(films.glob("*.dcm")))
    refused = {"what came is a DICOM file that is cut off": 1, "what came is no DICOM file": 1}
    assert (code, line, json.loads(said)) == (0, "", {"kept": count, "there": 0, "refused": refused})
    assert objects(home / "incoming" / "images") == objects(films)
    assert json.loads(say(*words)[2])["there"] == count
    assert {path: path.stat().st_mtime_ns for path in gateway.rglob("*")} == before
    assert not parts(home)
    code, line, _ = say("sfumato-site", "pacs", "watch", tmp_path / "nowhere", "--home", home, "--once")
    assert (code, "nowhere" in line) == (4, True)


def test_a_file_that_still_grows_is_waited_for(incoming, films, tmp_path):
    gateway, whole = tmp_path / "gateway", next(films.glob("*.dcm")).read_bytes()
    gateway.mkdir()

    def write():
        with (gateway / "film.dcm").open("wb", buffering=0) as stream:
            for at in range(0, len(whole), len(whole) // 8):
                stream.write(whole[at : at + len(whole) // 8])
                time.sleep(0.1)

    writing, came = threading.Thread(target=write), Counter()
    writing.start()
    time.sleep(0.05)
    watch_folder(gateway, incoming, 0.4, None, came)
    writing.join()
    assert came == {"kept": 1}, "it was not taken by pieces"
    (kept,) = incoming.images.rglob("*.dcm")
    assert kept.read_bytes() == whole
    with pytest.raises(DataError):
        watch_folder(gateway / "film.dcm" / "none", incoming, 0.1, None, came)


def part_of(incoming, data, expected=None):
    with incoming.part() as (stream, path):
        stream.write(data)
        stream.flush()
        return incoming.keep(path, expected)


def test_an_object_that_was_corrected_takes_the_olders_place(incoming, films, tmp_path):
    path = next(films.glob("*.dcm"))
    film = dcmread(path)
    assert part_of(incoming, path.read_bytes())
    assert not part_of(incoming, path.read_bytes())
    film.PatientID = "corrected"
    film.save_as(tmp_path / "new.dcm")
    assert part_of(incoming, (tmp_path / "new.dcm").read_bytes())
    incoming.write_index()
    (row,) = csv.DictReader((incoming.root / "index.csv").open())
    assert row["patient"] == "corrected"
    assert len(list(incoming.images.rglob("*.dcm"))) == 1
    other = Expected("1.2", film.SeriesInstanceUID, film.SOPInstanceUID)
    with pytest.raises(RejectedObjectError, match="another study"):
        part_of(incoming, path.read_bytes(), other)
    (next(incoming.images.rglob("*.dcm"))).unlink()
    incoming.write_index()
    assert (incoming.root / "index.csv").read_text().count("\n") == 1, "what was taken away is no row"


def test_names_depend_on_the_sites_key(tmp_path):
    names = set()
    for key in (b"a" * 32, b"b" * 32):
        with Incoming.open(tmp_path / "incoming", key, 10) as incoming:
            names.add(incoming.name_of("1.2.3"))
            assert incoming.name_of("1.2.3") != incoming.name_of("1.2.4")
    assert len(names) == 2


def test_parts_of_a_process_that_died_are_removed_and_of_one_that_lives_are_not(tmp_path):
    root = tmp_path / "incoming"
    dead = root / ".parts" / "dead"
    dead.mkdir(parents=True)
    (dead / ".x.part").write_bytes(b"half")
    with Incoming.open(root, b"k" * 32, 10) as first, first.part() as (_, path), Incoming.open(root, b"k" * 32, 10):
        assert not dead.exists()
        assert path.exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"--b\r\nA: b\r\n\r\nDATA\r\n--b--", b"DATA"),
        (b"preamble\r\n--b\r\n\r\nDA\r\n-TA\r\n--b--\r\n", b"DA\r\n-TA"),
        (b"--b\r\n\r\nDATA", None),
        (b"--b\r\n\r\nDATA\r\n--b\r\n\r\nMORE\r\n--b--", None),
        (b"DATA", None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_one_part_is_read_however_it_is_cut(tmp_path, body, said, size):
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    with (tmp_path / "out").open("wb") as out:
        if said is None:
            with pytest.raises(BrokenAnswerError):
                write_part(pieces, b"b", out)
            return
        write_part(pieces, b"b", out)
    assert (tmp_path / "out").read_bytes() == said


def test_other_types_than_multipart_are_told_apart():
    assert boundary_of('multipart/related; type="application/dicom"; boundary="x y"') == b"x y"
    for wrong in ("text/html; charset=utf-8", "", "multipart/related", "application/json"):
        with pytest.raises(BrokenAnswerError):
            boundary_of(wrong)


def test_studies_that_a_query_does_not_mean_are_not_taken():
    from datetime import date

    study = Study("1.2", "20240301", ("DX", "SR"), "Thorax [p.a.]", "", "", None)
    day = date(2024, 3, 1)
    assert Query(day, day, ("DX",), "thorax").takes(study)
    assert Query(description="*[P.A.]").takes(study)
    assert not Query(date(2024, 3, 2)).takes(study)
    assert not Query(None, date(2024, 2, 29)).takes(study)
    assert not Query(modalities=("CT",)).takes(study)
    assert not Query(description="p?a").takes(study)
    assert not Query(day).takes(Study("1.2", "", (), "", "", "", None)), "a study without a day lies in no range"


def test_the_default_classes_are_images_and_their_names_are_the_standards():
    from pydicom.uid import UID

    assert len(image_classes()) == 32
    assert all("Image Storage" in UID(uid).name for uid in image_classes())


def test_the_room_has_no_call_that_writes_to_a_pacs():
    forbidden = re.compile(
        r"send_c_store|send_n_|store_instances|delete_(study|series|instance)|_http_post|_http_delete|"
        r"\.(post|put|patch|delete)\(|STORE_SEND|\bPOST\b|\bPUT\b|\bDELETE\b|\bPATCH\b|scu_role"
    )
    sources = {path.name: path.read_text() for path in ROOM.glob("*.py")}
    assert len(sources) > 12
    assert not [name for name, text in sources.items() if forbidden.search(text)]
    asked = {
        node.func.attr
        for text in sources.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("send")
    }
    assert asked == {"send_c_find", "send_c_get", "send_c_move", "send_reject", "send"}
    assert sources["bounded.py"].count(".send(") == 1 and 'request.method == "GET"' in sources["bounded.py"]


def test_the_description_of_a_pacs_holds_no_password(say, tmp_path):
    path = tmp_path / "pacs.yaml"
    said = {"kind": "dicomweb", "url": "https://pacs.example", "user": "u", "password": "hunter2"}
    path.write_text(yaml.safe_dump(said))
    code, line, _ = say("sfumato-site", "pacs", "list", path)
    assert (code, "unknown key 'password'" in line, "hunter2" in line) == (2, True, False)
    path.write_text(yaml.safe_dump({**said, "kind": "ftp"}))
    code, line, _ = say("sfumato-site", "pacs", "list", path)
    assert (code, "hunter2" in line) == (2, False)


def test_the_page_shows_descriptions_that_are_right(tmp_path):
    page = (ROOM.parents[2] / "docs" / "pacs.md").read_text()
    section = page.split("## From a PACS")[1].split("\n## ")[0]
    shown = re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    kinds = []
    for text in shown:
        (tmp_path / "pacs.yaml").write_text(text)
        kinds.append(load_pacs(tmp_path / "pacs.yaml").kind)
    assert kinds == ["dicomweb", "dimse"]
    assert load_pacs(tmp_path / "pacs.yaml").listener.peers == {"ORTHANC": ["10.1.2.3"]}
    said = (DicomWeb.model_fields[name].default for name in ("connect_s", "idle_s", "object_s", "tries"))
    assert "| 10, 60, 900 |" in section and "| 4 |" in section and list(said) == [10, 60, 900, 4]

"""What tests of the PACS room share: films in a real Orthanc, a home, and descriptions of a PACS."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread

from sfumato_client.pacs import fetching
from sfumato_common.phantom.dicom import write_cohort
from support.commands import Say, speaker
from support.orthanc import PASSWORD, Orthanc, require_orthanc
from support.studies import POLICY

PATIENTS, FILMS = 6, 11


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, one or two films each."""
    require_orthanc()
    folder = tmp_path_factory.mktemp("films")
    write_cohort(folder, "alder", PATIENTS, 7, "aurora", size=96)
    assert len(list(folder.glob("*.dcm"))) == FILMS
    return folder


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, films: Path):
    server = Orthanc(tmp_path_factory.mktemp("orthanc")).start()
    server.fill(films)
    yield server
    server.kill()


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    monkeypatch.setenv("PACS_PASSWORD", PASSWORD)
    monkeypatch.setattr(fetching, "_pause", lambda failed: time.sleep(0.05))
    return speaker(monkeypatch, capsys)


@pytest.fixture
def home(say: Say, tmp_path: Path) -> Path:
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    assert say("sfumato-site", "init", "--home", tmp_path / "home", "--policy", policy)[0] == 0
    return tmp_path / "home"


def objects(folder: Path) -> set[str]:
    """SOP Instance UIDs of the files below a folder."""
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.rglob("*.dcm")}


def parts(home: Path) -> list[Path]:
    """What is half there."""
    return [path for path in (home / "incoming" / ".parts").rglob("*") if path.is_file() and path.name != ".lock"]

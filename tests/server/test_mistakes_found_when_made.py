"""Mistakes of a coordinator and of a researcher are told when they are made, with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.carded import published_set
from support.commands import Say, speaker

from sfumato_common.crypto.enrolment import enrolment_request
from sfumato_common.errors import ConfigError, FederationError, UnverifiedOrigin
from sfumato_common.files import write_json
from sfumato_server.enrol import address_notes, create_authority, enrol, rotate_server


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    return speaker(monkeypatch, capsys)


def test_ports_that_no_hospital_could_find_are_told_before_the_study_starts(tmp_path: Path) -> None:
    create_authority(tmp_path)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert address_notes(tmp_path, host) == []
    for host, option in (("10.0.0.5", "--name 10.0.0.5"), ("0.0.0.0", "--name HOST"), ("::", "--name HOST")):
        with pytest.raises(ConfigError, match=f"rotate {option}"):
            address_notes(tmp_path, host)
    rotate_server(tmp_path, ["coordinator.example"])
    assert address_notes(tmp_path, "0.0.0.0") == []
    (said,) = address_notes(tmp_path, "10.0.0.5")
    assert "for coordinator.example, and not for 10.0.0.5" in said
    rotate_server(tmp_path, ["coordinator.example", "10.0.0.5"])
    assert address_notes(tmp_path, "10.0.0.5") == []


def test_a_run_at_an_address_that_no_certificate_names_does_not_start(
    say: Say, consortium: Any, tmp_path: Path
) -> None:

    write_json(consortium.home / "plan.json", consortium.plan.model_dump(mode="json"))
    words = ("--home", consortium.home, "--out", tmp_path / "out", "--host", "10.255.0.5")
    code, said, _ = say("sfumato", "coordinator", "run", *words)
    assert code == ConfigError.exit_code
    assert "names this machine alone" in said
    assert not (tmp_path / "out").exists()


def test_a_site_outside_the_plan_is_told_the_nearest_name(consortium: Any) -> None:
    request = enrolment_request(consortium.identities["north"])
    with pytest.raises(FederationError, match=r"no site 'north' \('norh' is one\)"):
        enrol(consortium.home, request, "", ["norh", "south"])
    with pytest.raises(FederationError, match=r"no site 'north' \(there are alder, birch\)"):
        enrol(consortium.home, request, "", ["birch", "alder"])


@pytest.fixture(scope="module")
def published(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_set(founded, tmp_path_factory.mktemp("published"))


def test_a_key_that_lies_in_the_set_vouches_for_nothing(say: Say, published: Any, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(published, folder)
    inside = folder / "coordinator.pem"
    code, said, _ = say("sfumato", "dataset", "verify", folder, "--key", inside)
    assert code == UnverifiedOrigin.exit_code
    assert "'coordinator.pem' lies inside the set that it is to verify" in said
    (tmp_path / "link.pem").symlink_to(inside)
    assert say("sfumato", "dataset", "verify", folder, "--key", tmp_path / "link.pem")[0] == UnverifiedOrigin.exit_code
    assert say("sfumato", "dataset", "verify", folder, "--site-key", f"north={inside}")[0] == UnverifiedOrigin.exit_code
    (tmp_path / "own.pem").write_bytes(inside.read_bytes())
    assert say("sfumato", "dataset", "verify", folder, "--key", tmp_path / "own.pem")[0] == 0

"""Who else is on the machine: homes of both sides are closed to them, also those that an earlier version left open."""

import os
import stat
from pathlib import Path

import pytest
import yaml
from support.commands import speaker
from support.studies import PLAN, POLICY

from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import ConfigError
from sfumato_common.files import close_folder, make_private_folder
from sfumato_server.enrol import create_authority


@pytest.fixture
def say(monkeypatch, capsys):
    return speaker(monkeypatch, capsys)


@pytest.fixture
def careless():
    """A umask that lets everybody read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def within_reach_of_others(home: Path) -> list[Path]:
    """Files and folders at or below a home that somebody else on the machine can get at: every folder above is open."""
    found = []
    for path in (home, *home.rglob("*")):
        above = [folder for folder in (path, *path.parents) if folder == home or home in folder.parents]
        if all(mode(step) & (0o055 if step.is_dir() else 0o044) for step in above):
            found.append(path)
    return found


def set_up(say, root: Path) -> tuple[Path, Path]:
    (root / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    (root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    site, coordinator = root / "site", root / "coord"
    assert say("sfumato-site", "init", "--home", site, "--policy", root / "policy.yaml")[0] == 0
    assert say("sfumato", "coordinator", "init", "--home", coordinator, "--plan", root / "plan.yaml")[0] == 0
    return site, coordinator


def test_both_sides_make_homes_that_nobody_else_can_enter(tmp_path, say, careless):
    for home in set_up(say, tmp_path):
        assert mode(home) == 0o700
        assert within_reach_of_others(home) == []


def test_the_home_of_an_earlier_version_is_closed_by_the_first_command(tmp_path, say, careless):
    site, coordinator = set_up(say, tmp_path)
    commands = {
        site: ("sfumato-site", "fingerprint", "--home", site),
        coordinator: ("sfumato", "coordinator", "list", "--home", coordinator),
    }
    for home, words in commands.items():
        home.chmod(0o755)
        (home / "store").mkdir(exist_ok=True)
        (home / "store" / "image").write_text("a patient")
        assert within_reach_of_others(home)
        code, line, _ = say(*words)
        assert (code, "is closed now" in line) == (0, True)
        assert mode(home) == 0o700
        assert within_reach_of_others(home) == []
        assert say(*words)[1] == ""


def test_a_home_that_stood_open_before_init_is_closed(tmp_path, say, careless):
    for name in ("site", "coord"):
        (tmp_path / name).mkdir()
        assert mode(tmp_path / name) == 0o777
    for home in set_up(say, tmp_path):
        assert within_reach_of_others(home) == []


def test_a_home_that_cannot_be_closed_is_not_used(tmp_path, say, monkeypatch):
    site, coordinator = set_up(say, tmp_path)
    for home in (site, coordinator):
        home.chmod(0o750)
    monkeypatch.setattr(Path, "chmod", lambda *_: (_ for _ in ()).throw(PermissionError()))
    members = ("sfumato", "coordinator", "list", "--home", coordinator)
    for words in (("sfumato-site", "fingerprint", "--home", site), members):
        code, line, said = say(*words)
        assert (code, "cannot be closed" in line, said) == (ConfigError.exit_code, True, "")
    # a file system that says yes and does nothing
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(ConfigError, match="cannot be closed"):
        close_folder(site)


def test_a_link_to_an_open_home_is_followed(tmp_path, say, careless):
    site, _ = set_up(say, tmp_path)
    site.chmod(0o777)
    (tmp_path / "link").symlink_to(site)
    assert say("sfumato-site", "fingerprint", "--home", tmp_path / "link")[0] == 0
    assert mode(site) == 0o700


def test_the_library_makes_private_homes_too(tmp_path, careless):
    for open_folder in ("identity", "coord/authority"):
        (tmp_path / open_folder).mkdir(parents=True)
    create_authority(tmp_path / "coord")
    create_identity(tmp_path / "identity", "alder")
    make_private_folder(tmp_path / "new" / "home")
    assert {mode(tmp_path / name) for name in ("coord", "coord/authority", "identity", "new/home")} == {0o700}

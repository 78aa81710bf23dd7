"""A coordinator's home that is backed up, handed over, restored or copied: of two copies one runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.studies import PLAN
from typer.testing import CliRunner

from sfumato_client.site.backup import restore_backup as restore_site
from sfumato_common.crypto.archive import read_archive
from sfumato_common.errors import BusyError, ConfigError, PolicyRefusal, VerificationError
from sfumato_common.locks import exclusive
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.cli.main import app
from sfumato_server.coordinator import backup as module
from sfumato_server.coordinator.admitting import admit_site
from sfumato_server.coordinator.backup import restore_backup, settle_copy, write_backup
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.replanning import replace_plan
from sfumato_server.coordinator.run import Listen, run_coordinator
from sfumato_server.enrol import revoke, unlock_authority
from sfumato_server.enrol.copies import note_place, require_only
from sfumato_server.simulate.home import make_coordinator

WORD, CA_WORD = b"a long passphrase", b"another long passphrase"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CoordinatorHome:
    monkeypatch.delenv("SFUMATO_CA_PASSPHRASE", raising=False)  # a running coordinator is not to have it
    made = make_coordinator(tmp_path / "coord", parse(PLAN, Plan, "plan"), CA_WORD)
    note_place(made.root)
    made.logs.mkdir()
    (made.logs / "study.log").write_text("of this machine")
    made.superlink_secret.write_text("of this run")
    return made


def refuses(home: CoordinatorHome, words: str) -> None:
    """Nothing that asks, enrols or signs is done in this home."""
    site = next(iter(home.plan().sites))
    for act in (
        lambda: unlock_authority(home.root, CA_WORD),
        lambda: revoke(home.root, site),
        lambda: replace_plan(home, home.plan()),
        lambda: admit_site(home, "dahlia", 40),
        lambda: write_backup(home.root, home.root.parent / "more.backup", WORD),
        lambda: run_coordinator(home.root, home.root.parent / "out", Listen("127.0.0.1", 0)),
    ):
        with pytest.raises(ConfigError, match=words):
            act()


def command(*words: object, typed: str = ""):
    return CliRunner().invoke(app, ["coordinator", *map(str, words)], input=typed)


def test_a_home_that_was_handed_over_goes_on_where_somebody_says_that_it_is_alone(
    home: CoordinatorHome, tmp_path: Path
) -> None:
    (tmp_path / "word").write_bytes(WORD + b"\n")
    out, new = tmp_path / "coord.backup", tmp_path / "new"
    word = ("--passphrase-file", tmp_path / "word")
    done = command("backup", "--home", home.root, "--out", out, "--hand-over", *word)
    assert done.exit_code == 0, done.output
    assert "this home is closed" in done.output
    refuses(home, "handed over to another machine")
    with pytest.raises(ConfigError, match="handed over"):
        settle_copy(home.root)
    out.unlink()  # lost on its way: it can be written once more, and nothing else
    write_backup(home.root, out, WORD, hand_over=True)
    done = command("restore", out, "--home", new, *word, typed="another\n")
    assert isinstance(done.exception, PolicyRefusal)
    restored = CoordinatorHome(new)
    refuses(restored, "copied, or restored")
    settle_copy(new)
    require_only(new)
    unlock_authority(new, CA_WORD)
    said = [entry["words"] for entry in json.loads((new / "place.json").read_text())["said"]]
    assert "handed over" in said[0]
    assert "a person said" in said[1]
    assert restored.plan() == home.plan()
    assert not (new / "logs").exists()
    assert not restored.superlink_secret.exists()
    done = command("restore", out, "--home", tmp_path / "third", *word, typed="tiny\n")
    assert done.exit_code == 0, done.output
    require_only(tmp_path / "third")


def test_a_copied_home_is_told_and_a_renamed_one_is_not(home: CoordinatorHome, tmp_path: Path) -> None:
    copied = CoordinatorHome(Path(shutil.copytree(home.root, tmp_path / "copy")))
    refuses(copied, "where another copy of it runs")
    require_only(home.root)
    require_only(home.root.rename(tmp_path / "renamed"))
    settle_copy(copied.root)
    require_only(copied.root)


def test_what_cannot_be_written_closes_nothing(
    home: CoordinatorHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="at least 12"):
        write_backup(home.root, tmp_path / "short.backup", b"short", hand_over=True)
    with pytest.raises(ConfigError, match="a part of itself"):
        write_backup(home.root, home.root / "inside.backup", WORD, hand_over=True)
    with exclusive(home.root, "a test"), pytest.raises(BusyError):
        write_backup(home.root, tmp_path / "busy.backup", WORD, hand_over=True)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_archive", full)
    with pytest.raises(OSError, match="No space"):
        write_backup(home.root, tmp_path / "full.backup", WORD, hand_over=True)
    require_only(home.root)
    assert not list(tmp_path.glob("*.backup"))


def test_a_damaged_file_another_passphrase_and_a_home_of_a_site_are_refused(
    home: CoordinatorHome, tmp_path: Path
) -> None:
    out = tmp_path / "coord.backup"
    write_backup(home.root, out, WORD)
    whole = out.read_bytes()
    assert home.plan().study.encode() not in whole
    assert b"PRIVATE KEY" not in whole
    for data, word in ((whole, CA_WORD), (whole[:-9], WORD), (whole[:-9] + b"123456789", WORD), (b"x" * 99, WORD)):
        out.write_bytes(data)
        with pytest.raises(VerificationError):
            restore_backup(out, tmp_path / "new", word)
        assert not (tmp_path / "new").exists()
        assert not (tmp_path / ".new.restoring").exists()
    out.write_bytes(whole)
    with pytest.raises(VerificationError, match="no backup of a site"):
        restore_site(out, tmp_path / "site", WORD)
    (tmp_path / "seen").mkdir()
    note = read_archive(out, tmp_path / "seen", WORD)
    assert (note["study"], note["handed_over"]) == ("tiny", False)
    with pytest.raises(ConfigError, match="not empty"):
        restore_backup(out, home.root, WORD)

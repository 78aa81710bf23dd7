"""The signed file of a set's versions: which is current, which is not, and what may not be made of it."""

import json
import shutil

import pytest
from support.commands import speaker

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import canonical_json
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish
from sfumato_server.publish.versions import (
    manifest_sha256,
    note_version,
    read_status,
    require_newest,
    withdraw_version,
)

HASHES = ("1" * 64, "2" * 64)


@pytest.fixture
def file(consortium, tmp_path):
    """A status file of two versions, by two plans."""
    path, lineage = tmp_path / "versions.json", {"version": 2, "previous": HASHES[0], "keep": {"west": "3" * 64}}
    note_version(path, consortium.authority, consortium.plan, HASHES[0])
    from sfumato_common.study.lineage import Lineage

    second = consortium.plan.model_copy(update={"lineage": Lineage.model_validate(lineage)})
    note_version(path, consortium.authority, second, HASHES[1])
    return path


def test_the_newer_version_is_current_and_the_older_superseded_by_it(consortium, file):
    found = read_status(file.read_bytes(), consortium.authority.public_key)
    assert [(one.number, one.state, one.superseded_by) for one in found.versions] == [
        (1, "superseded", 2),
        (2, "current", None),
    ]
    assert found.sequence == 2
    again = note_version(file, consortium.authority, consortium.plan.model_copy(), HASHES[1])
    assert again == found, "the same set again changes nothing"


def test_a_withdrawn_version_stays_withdrawn(consortium, file):
    found = withdraw_version(file, consortium.authority, 1)
    assert (found.sequence, found.version(HASHES[0]).state) == (3, "withdrawn")
    assert withdraw_version(file, consortium.authority, 1).sequence == 3
    later = note_version(file, consortium.authority, consortium.plan, "4" * 64)
    assert later.version(HASHES[0]).state == "withdrawn"
    with pytest.raises(ConfigError, match="no version 7"):
        withdraw_version(file, consortium.authority, 7)


@pytest.mark.parametrize("what", ["state", "sequence", "key", "form", "twice"])
def test_an_altered_or_foreign_file_is_refused(consortium, file, what):
    key, data = consortium.authority.public_key, file.read_bytes()
    outer = json.loads(data)
    if what == "state":
        outer["statement"]["versions"][0]["state"] = "current"
        outer["statement"]["versions"][1]["state"] = "superseded"
    elif what == "sequence":
        outer["statement"]["sequence"] = 9
    elif what == "twice":
        outer["statement"]["versions"][0]["manifest_sha256"] = HASHES[1]
    elif what == "key":
        key = consortium.identities["east"].signing_public
    data = data + b"\n" if what == "form" else canonical_json(outer)
    with pytest.raises(VerificationError):
        read_status(data, key)


def test_a_set_that_the_file_does_not_know_is_refused(consortium, file):
    with pytest.raises(VerificationError, match="does not know this set"):
        read_status(file.read_bytes(), consortium.authority.public_key).version("5" * 64)


def test_who_saw_a_newer_file_takes_no_older_one(consortium, file, tmp_path):
    key, seen, old = consortium.authority.public_key, tmp_path / "state" / "seen.json", file.read_bytes()
    require_newest(read_status(old, key), key, seen)
    withdraw_version(file, consortium.authority, 2)
    require_newest(read_status(file.read_bytes(), key), key, seen)
    with pytest.raises(VerificationError, match="number 3 was"):
        require_newest(read_status(old, key), key, seen)
    require_newest(read_status(file.read_bytes(), key), key, seen)


def test_verify_says_how_a_set_stands_and_fails_for_a_withdrawn_one(consortium, tmp_path, monkeypatch, capsys):
    say, authority = speaker(monkeypatch, capsys), consortium.authority
    from sfumato_server.intake.admission import package_path

    for site in ("east", "north", "south"):
        path = package_path(consortium.home, site, "formal")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(consortium.package(site))
    made = publish(
        pool_packages(consortium.home, consortium.plan, consortium.registry),
        consortium.plan,
        tmp_path / "out",
        authority,
        {"exchanges": []},
        None,
    )
    assert manifest_sha256(made.folder) == made.manifest_sha256
    note_version(consortium.home / "versions.json", authority, consortium.plan, made.manifest_sha256)
    (tmp_path / "key.pem").write_bytes(authority.public_key)
    status, seen = tmp_path / "status.json", tmp_path / "seen.json"
    code, _, said = say("sfumato", "study", "status-file", "--home", consortium.home, "--out", status)
    assert (code, "version 1" in said) == (0, True)
    words = ["dataset", "verify", made.folder, "--key", tmp_path / "key.pem", "--status", status, "--seen", seen]
    code, _, said = say("sfumato", *words)
    assert (code, "current" in said) == (0, True)
    older = shutil.copy2(status, tmp_path / "older.json")
    assert say("sfumato", "study", "withdraw", "--home", consortium.home, "--version", 1, "--out", status)[0] == 0
    code, line, said = say("sfumato", *words, "--json")
    assert code != 0
    assert "withdrawn by its consortium" in line
    assert json.loads(said)["version"]["state"] == "withdrawn"
    words[words.index(status)] = older
    code, line, _ = say("sfumato", *words)
    assert (code != 0, "was shown here before" in line.replace("\n", " ")) == (True, True)

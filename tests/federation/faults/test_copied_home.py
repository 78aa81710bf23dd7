"""Two copies of one ledger: handed over, restored from an old backup, or copied beside; none gives budget back."""

import copy
import io
import shutil
import tarfile
from pathlib import Path

import pytest
from support.commands import speaker
from support.enrolment import enrol_site
from support.federations import Federation, make_federation
from support.stopped import run_until
from support.studies import PLAN, POLICY

from sfumato_client.ledger.copies import places, read_restored
from sfumato_client.site import recovery
from sfumato_client.site.backup import restore_backup, write_backup
from sfumato_client.site.ending import unaccept
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_client.site.overview import overview
from sfumato_client.site.restored import notice_copy, require_here
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.crypto.identity import load_identity
from sfumato_common.crypto.sealed_file import SealedReader
from sfumato_common.errors import ConfigError, LedgerError, VerificationError
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.study import run_study
from sfumato_server.simulate.home import make_coordinator, take_package

ONE = {**copy.deepcopy(PLAN), "sites": {"alder": {"nominal_patients": 40}}}
ONE["federation"] = {**ONE["federation"], "quorum": 1}
ROOMY = {**POLICY, "budget": {"epsilon": 200.0, "delta": 1.0e-5}}
WORD = b"a long passphrase"


def federation_of(root) -> Federation:
    coordinator = CoordinatorHome(root / "coordinator")
    plan = coordinator.plan()
    found = Federation(root, plan, coordinator, {})
    found.sites["alder"] = site_of(found, root / "sites" / "alder")
    return found


def site_of(federation, root, link="") -> Site:
    return Site(
        SiteHome(Path(root), link), lambda data, plan: take_package(federation.coordinator, plan, "alder", data)
    )


def finish(federation):
    assert run_study(federation.coordinator, federation, classifier_steps=5) == "completed", federation.result()


@pytest.fixture(scope="module")
def paused(tmp_path_factory):
    """One round of training was answered, and the home noted where it lies, as a run of it does."""
    root = tmp_path_factory.mktemp("paused")
    federation = make_federation(root, ONE, ROOMY)
    require_here(federation.home("alder"))
    run_until(federation, "stage", 2)
    return root


@pytest.fixture
def federation(paused, tmp_path):
    """The same, where the copy that a fixture makes is no copy that a ledger is to tell."""
    made = federation_of(Path(shutil.copytree(paused, tmp_path / "study")))
    places(made.home("alder").ledger_file)[0].unlink()
    require_here(made.home("alder"))
    return made


def charged(home):
    with home.open_ledger() as ledger:
        ledger.verify()
        return [(entry.purpose, entry.round) for entry in ledger.entries()]


def charge_a_table(home):
    with home.open_ledger() as ledger:
        event = GaussianRelease(9.0)
        ledger.reserve(study="t", plan_hash="0" * 64, purpose="table", round=1, cohort="train", event=event)


def hello(plan, answered=""):
    return Request(PROTOCOL, plan.digest, "hello", "", 0, {}, answered)


def test_a_home_that_was_handed_over_goes_on_elsewhere_and_never_here(federation, tmp_path):
    old, plan = federation.home("alder"), federation.plan
    before = charged(old)
    write_backup(old, tmp_path / "alder.backup", WORD, images=True, hand_over=True)
    with pytest.raises(LedgerError, match="handed over"):
        require_here(old)
    assert federation.sites["alder"].handle(hello(plan)).code == "ledger-refused"
    assert "handed over" in overview(old.root)["next"][0]
    with pytest.raises(LedgerError, match="handed over"):
        charge_a_table(old)
    said, unheard = restore_backup(tmp_path / "alder.backup", tmp_path / "new", WORD)
    assert (said.handed_over, unheard) == (True, [plan.study])
    assert "restored from a backup" in overview(tmp_path / "new")["next"][0]
    federation.sites["alder"] = site_of(federation, tmp_path / "new")
    finish(federation)
    new = federation.home("alder")
    assert overview(new.root)["ledger"] == ""
    after = charged(new)
    assert after[: len(before)] == before and len(set(after)) == len(after) > len(before), "each charge once"
    assert charged(old) == before
    assert read_restored(new.ledger_file) is None
    with pytest.raises(LedgerError, match="closed"):
        write_backup(old, tmp_path / "again.backup", WORD)


def test_an_older_backup_is_behind_and_refuses_until_that_is_settled(federation, tmp_path):
    """The attack: charge, restore what stood before, and have the budget again."""
    old, plan = federation.home("alder"), federation.plan
    write_backup(old, tmp_path / "old.backup", WORD, images=True)
    run_until(federation, "make")
    spent = charged(old)
    restore_backup(tmp_path / "old.backup", tmp_path / "new", WORD)
    new = SiteHome(tmp_path / "new")
    assert len(charged(new)) < len(spent)
    with pytest.raises(LedgerError, match="restored from a backup"):
        charge_a_table(new)
    with pytest.raises(LedgerError, match="not known"):
        unaccept(new, plan.study)
    federation.sites["alder"] = site_of(federation, tmp_path / "new")
    federation.sent.clear()
    run_study(federation.coordinator, federation, classifier_steps=5)
    assert {reply.code for _, _, reply in federation.sent} == {"ledger-refused"}
    lost = recovery.recoveries(new)
    assert [item.unheard for item in lost] == [False], "the coordinator told which"
    recovery.recover(new, lost)
    assert sorted(charged(new)) == sorted(spent)
    assert read_restored(new.ledger_file) is None
    assert site_of(federation, tmp_path / "new").handle(hello(plan)).status == "ok"


def test_of_two_machines_with_one_home_the_second_to_answer_is_stopped(federation, tmp_path):
    """Whichever of the two answers, the coordinator's next question tells the other one, which then charges nothing."""
    here = federation.home("alder")
    shutil.copytree(here.root, tmp_path / "beside")
    federation.sites["alder"] = site_of(federation, tmp_path / "beside")
    assert notice_copy(SiteHome(tmp_path / "beside"))
    run_until(federation, "make")
    assert len(charged(SiteHome(tmp_path / "beside"))) > len(charged(here))
    federation.sites["alder"] = site_of(federation, here.root)
    before = charged(here)
    federation.sent.clear()
    run_study(federation.coordinator, federation, classifier_steps=5)
    assert {reply.code for _, _, reply in federation.sent} == {"ledger-refused"}
    assert charged(here) == before


def test_every_open_study_is_heard_before_any_charges(federation, tmp_path):
    """A second coordinator cannot vouch for what the first one's study was charged."""
    home = federation.home("alder")
    second = parse({**ONE, "study": "second"}, Plan, "plan")
    other = make_coordinator(tmp_path / "two", second)
    enrol_site(other.root, load_identity(home.identity))
    SiteHome(home.root, "second").pin(second)
    write_backup(home, tmp_path / "old.backup", WORD, images=True)
    restore_backup(tmp_path / "old.backup", tmp_path / "new", WORD)
    new = SiteHome(tmp_path / "new")
    answered = ",".join(f"{purpose}:{number}" for purpose, number in charged(new))
    assert site_of(federation, new.root, "second").handle(hello(second)).code == "ledger-refused"
    assert site_of(federation, new.root).handle(hello(federation.plan, answered.split(",")[0])).status == "ok"
    assert site_of(federation, new.root, "second").handle(hello(second)).status == "ok"
    with new.open_ledger() as ledger:
        assert [row.value["kind"] for row in ledger._rows()].count("restore") == 1


def test_who_cannot_be_heard_is_counted_whole_also_when_it_was_left(federation, tmp_path, monkeypatch, capsys):
    say = speaker(monkeypatch, capsys)
    home, plan = federation.home("alder"), federation.plan
    shutil.copytree(home.root, tmp_path / "copy")
    new = SiteHome(tmp_path / "copy")
    assert say("sfumato-site", "leave", plan.study, "--home", new.root)[0] == 0
    code, _, said = say("sfumato-site", "ledger", "recover", "--home", new.root, "--yes")
    assert code == 0 and "No coordinator of" in said and "no other copy" in said
    with new.open_ledger() as ledger:
        whole = ledger.spent_epsilon("train")
    finish(federation)
    with home.open_ledger() as ledger:
        assert ledger.spent_epsilon("train") <= whole, "never less than what was charged elsewhere"


def names_in(path):
    with SealedReader(path, WORD) as sealed, tarfile.open(fileobj=io.BufferedReader(sealed), mode="r|") as tar:
        return {member.name for member in tar}


def test_a_backup_has_no_pixel_unless_asked_and_opens_for_its_passphrase_alone(federation, tmp_path):
    home, path = federation.home("alder"), tmp_path / "alder.backup"
    (home.root / "check-sheet.png").write_bytes(b"pixels")
    write_backup(home, path, WORD)
    assert (path.stat().st_mode & 0o077) == 0
    names = names_in(path)
    assert {"ledger.sqlite", "policy.yaml", "identity/split.key"} <= names
    assert not [name for name in names if name.startswith(("store", ".store", "local", "incoming", "check-sheet"))]
    assert "identity/store.key" not in names
    write_backup(home, tmp_path / "all.backup", WORD, images=True)
    assert {"identity/store.key", "store/store.json"} <= names_in(tmp_path / "all.backup")
    for damage in ("passphrase", "cut", "bit"):
        data = bytearray(path.read_bytes())
        if damage == "cut":
            del data[-20:]
        elif damage == "bit":
            data[len(data) // 2] ^= 1
        other = tmp_path / f"{damage}.backup"
        other.write_bytes(bytes(data))
        word = b"another passphrase" if damage == "passphrase" else WORD
        with pytest.raises(VerificationError, match="does not open"):
            restore_backup(other, tmp_path / "new", word)
        assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))
    with pytest.raises(ConfigError, match="12 letters"):
        write_backup(home, tmp_path / "short.backup", b"short")
    assert not places(home.ledger_file)[2].exists(), "what could not be written closes nothing"
    with pytest.raises(ConfigError, match="not empty"):
        restore_backup(path, home.root, WORD)


def test_a_home_without_an_open_study_asks_a_person(federation, tmp_path, monkeypatch, capsys):
    say = speaker(monkeypatch, capsys)
    home = federation.home("alder")
    finish(federation)
    (tmp_path / "word").write_bytes(WORD + b"\n")
    file = ("--passphrase-file", tmp_path / "word")
    out = tmp_path / "alder.backup"
    assert say("sfumato-site", "backup", "--home", home.root, "--out", out, "--hand-over", *file)[0] == 0
    code, _, said = say("sfumato-site", "restore", out, "--home", tmp_path / "new", *file, "--only-copy")
    assert code == 0 and "no study is open" in said and "has no images" in said
    new = SiteHome(tmp_path / "new")
    assert charged(new) == charged(home)
    charge_a_table(new)
    marks = say("sfumato-site", "ledger", "show", "--home", new.root, "--json")[2]
    assert "handed over" in marks and "no other copy" in marks

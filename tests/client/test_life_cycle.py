"""What comes after the first hour: patients who withdraw, plans taken back, certificates that end, a home removed."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.commands import speaker
from support.enrolment import enrol_site, keep_grant
from support.lone_site import HELD, KEY, STUDY, TRAIN, VALUES, make_home_at
from support.ward import Ward

from sfumato_client.ingest.sources import AnySource
from sfumato_client.ledger.approvals import approval
from sfumato_client.site import certificates as certificates_module
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import ingest_source, update_source
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.accounting.members import pseudonym
from sfumato_common.command_line import console
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.crypto.pseudonyms import bind_names
from sfumato_common.errors import DataError, PolicyRefusal
from sfumato_common.locks import exclusive
from sfumato_common.strict import parse
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan
from sfumato_server.simulate.home import make_coordinator


@pytest.fixture
def say(monkeypatch, capsys):
    monkeypatch.setattr(console, "width", 220)
    return speaker(monkeypatch, capsys)


def fill(made: Ward) -> Ward:
    for name in [*TRAIN[:5], *HELD[:3]]:
        made.put(f"{name}-a.png", name)
        made.put(f"{name}-b.png", name, "opacity")
    return made


@pytest.fixture
def home(tmp_path) -> SiteHome:
    return make_home_at(tmp_path / "alder")


@pytest.fixture
def ward(tmp_path, monkeypatch) -> Ward:
    return fill(Ward(tmp_path / "ward", monkeypatch))


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    root = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        ingest(made := make_home_at(root / "alder"), fill(Ward(root / "ward", patch)).source())
    return made.root


@pytest.fixture
def ingested(once, tmp_path) -> SiteHome:
    """A home of sixteen images of eight patients."""
    return SiteHome(Path(shutil.copytree(once, tmp_path / "ingested")))


def members(home):
    found = home.open_store().members("train", "holdout")
    return {"train": set(found.train), "holdout": set(found.holdout)}


def images(home):
    """Every image of the store: its split, label and patient's number of images."""
    store, found = home.open_store(), dict[bytes, tuple[str, int]]()
    for split in ("train", "holdout"):
        pixels, labels, _ = store.cohort(split).everything()
        found |= {one.tobytes(): (split, int(label)) for one, label in zip(pixels, labels, strict=True)}
    return found


def pseudonyms(*names):
    return {pseudonym(KEY, name) for name in names}


def charge(home, plan=STUDY):
    with home.open_ledger() as ledger:
        ledger.reserve(study=plan.study, plan_hash=plan.digest, purpose="spectral", round=1, cohort="train",
                       event=GaussianRelease(20.0))  # fmt: skip


def approve(home, plan=STUDY):
    identity = load_identity(home.identity)
    with home.open_ledger() as ledger:
        for part in plan.parts_at("alder"):
            ledger.approve(approval(plan.digest, part, "gate", b"package", ("e" * 64,), identity.sign_approval))


def ingest(home, source: AnySource):
    return ingest_source(home, source, STUDY, workers=1)


def update(home, source: AnySource):
    return update_source(home, source, STUDY, workers=1)


def test_a_patient_is_gone_at_once_and_from_every_later_ingest(home, ward, say, tmp_path):
    ingest(home, ward.source())
    before, gone = images(home), (TRAIN[1], HELD[0])
    file = tmp_path / "withdrawn.txt"
    file.write_text("\n".join([*gone, "nobody-of-this-name"]) + "\n")
    code, _, said = say("sfumato-site", "withdraw", "--home", home.root, "--file", file, "--yes")
    assert code == 0 and "erased 4 images" in said and "1 of them has no image" in said
    after = images(home)
    assert len(after) == len(before) - 4 and after.items() <= before.items(), "the others stay to the bit"
    assert members(home) == {
        "train": pseudonyms(*TRAIN[:5]) - pseudonyms(*gone), "holdout": pseudonyms(*HELD[:3]) - pseudonyms(*gone),
    }  # fmt: skip
    everything = b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())
    assert all(name.encode() not in everything for name in gone), "no identifier is kept, also of who withdrew"
    ward.put("new.png", TRAIN[7])
    report = update(home, ward.source())
    assert sorted(ward.asked) == sorted(["new.png", *(f"{name}-{one}.png" for name in gone for one in "ab")])
    assert report.reasons == {"its patient has withdrawn": 4}
    assert images(home).keys() > after.keys() and not members(home)["train"] & pseudonyms(*gone)


def test_who_agrees_anew_is_taken_again_in_the_cohort_of_the_first_charge(home, ward, say):
    home.pin(STUDY)
    ingest(home, ward.source())
    charge(home)
    with home.open_ledger() as ledger:
        home.charged_cohorts(STUDY, ledger, "train", "holdout")
    command = ("sfumato-site", "withdraw", "--home", home.root, TRAIN[0], "--yes")
    code, line, _ = say(*command)
    assert code != 0 and "has begun" in line and len(members(home)["train"]) == 5, "one cohort for a whole study"
    approve(home)
    code, _, said = say(*command)
    assert code == 0 and f"approved, and sent where the coordinator asked: {STUDY.study}" in said
    with home.open_ledger() as ledger:
        assert len(ledger.entries()) == 1, "the spend stays"
    assert say("sfumato-site", "withdraw", "--home", home.root, TRAIN[0], "--again")[0] == 0
    update(home, ward.source())
    assert pseudonyms(TRAIN[0]) <= members(home)["train"]


def test_a_person_is_told_who_is_known_here_before_they_say_yes(ingested, say):
    home = ingested
    code, line, said = say("sfumato-site", "withdraw", "--home", home.root, *TRAIN[:2], "nobody", "none")
    assert "Erase the images of 2 patients here; 2 others have none and would be kept out? Nothing" in f"{said} {line}"
    assert code != 0 and len(images(home)) == 16 and not (home.identity / "withdrawn.json").exists()


def test_an_identifier_in_another_writing_erases_nobody(ingested, say):
    home = ingested
    code, line, _ = say("sfumato-site", "withdraw", "--home", home.root, TRAIN[0].lower(), "--yes")
    assert code != 0 and "another writing" in line
    assert len(images(home)) == 16 and not (home.identity / "withdrawn.json").exists()


def test_an_ingest_under_way_holds_nothing_of_who_withdrew(ingested, say):
    home = ingested
    partial = home.root / ".store.partial"
    partial.mkdir()
    (partial / "pixels-of-a-killed-ingest").write_bytes(b"pixels")
    home.steward_folder.mkdir()
    (home.steward_folder / "k-salsa-gan.png").write_bytes(b"a sheet with members' own images")
    assert say("sfumato-site", "withdraw", "--home", home.root, TRAIN[0], "--yes")[0] == 0
    assert not partial.exists() and not list(home.steward_folder.iterdir())


def plan_file(tmp_path, **changes):
    path = tmp_path / "plan.yaml"
    path.write_text(plan_text(parse({**VALUES, **changes}, Plan, "plan")))
    return path


def test_a_plan_that_cost_nothing_is_taken_back_and_another_one_takes_its_name(home, say):
    later = parse({**VALUES, "federation": {"quorum": 1, "round_deadline_s": 7200}}, Plan, "plan")
    home.pin(STUDY)
    with pytest.raises(PolicyRefusal, match="was accepted here before"):
        home.pin(later)
    with exclusive(home.link, "a node"):
        code, line, _ = say("sfumato-site", "unaccept", "--home", home.root, STUDY.study)
    assert code != 0 and "already running" in line and home.readable_plans() == [STUDY]
    code, _, said = say("sfumato-site", "unaccept", "--home", home.root, STUDY.study)
    assert code == 0 and STUDY.digest in said.replace("\n", "")
    with pytest.raises(PolicyRefusal, match="not accepted here"):
        home.accepted_plan(STUDY.digest)
    home.pin(later)
    assert home.readable_plans() == [later]
    charge(home, later)
    code, line, _ = say("sfumato-site", "unaccept", "--home", home.root, STUDY.study)
    assert code != 0 and "stays in the ledger" in line and home.readable_plans() == [later]
    home.leave(STUDY.study)
    assert say("sfumato-site", "unaccept", "--home", home.root, STUDY.study)[0] != 0, "not by leaving it either"


def test_certificates_say_when_they_end_and_what_renews_them(home, say, tmp_path, monkeypatch):
    coordinator = make_coordinator(tmp_path / "coordinator", STUDY)
    identity = load_identity(home.identity)
    keep_grant(coordinator.root, identity, enrol_site(coordinator.root, identity))
    command = ("sfumato-site", "certificates", "--home", home.root, "--json")
    rows = json.loads(say(*command)[2])["certificates"]
    assert [(row["of"], row["standing"]) for row in rows] == [("this site's", "good"), ("the CA's", "good")]
    assert 720 < rows[0]["days"] <= 730 < rows[1]["days"]
    assert "coordinator renew alder" in rows[0]["renewed_by"] and "rotate --authority" in rows[1]["renewed_by"]

    class Soon(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=rows[0]["days"] - 3)

    monkeypatch.setattr(certificates_module, "datetime", Soon)
    assert json.loads(say(*command)[2])["certificates"][0]["days"] in (2, 3)


def test_numbers_and_numbers_behind_letters_are_told_apart_after_a_withdrawal(home, tmp_path, monkeypatch, say):
    """What the store knows of the identifiers that are left still asks who P101 beside 101 is."""
    ward = Ward(tmp_path / "numbers", monkeypatch)
    for name in ("101", "P202", "303", "P404", "505", "606"):
        ward.put(f"{name}.png", name)
    ingest(home, ward.source())
    code, _, said = say("sfumato-site", "withdraw", "--home", home.root, "303", "P404", "--yes")
    assert code == 0 and "erased 2 images" in said and len(images(home)) == 4
    ward.put("again.png", "707")
    assert update(home, ward.source(most_dropped=1.0)).kept == 5
    for name in ("P101", "202"):
        ward.put(f"{name}-too.png", name)
        with pytest.raises(DataError, match="prefixed_ids"):
            update(home, ward.source(most_dropped=1.0))
        del ward.rows[f"{name}-too.png"]


def test_a_removed_home_keeps_its_account_and_nothing_else(ingested, say):
    home = ingested
    home.pin(STUDY)
    charge(home)
    approve(home)
    public = load_identity(home.identity).signing_public
    (home.outbox).mkdir()
    (home.outbox / "answer.safetensors").write_bytes(b"answer")
    second = create_identity(home.root / "names" / "site-abcdefghijklmnop", "site-abcdefghijklmnop")
    bound = bind_names(load_identity(home.identity), second)
    (second.folder / "binding.json").write_bytes(bound)
    keys = [path for folder in (home.identity, second.folder) for path in folder.iterdir() if path.is_file()]
    secret = [(path.name, path.read_bytes()) for path in keys]
    code, _, said = say("sfumato-site", "remove", "--home", home.root, "--yes")
    assert code == 0 and "Kept, and why" in said
    left = {path.name for path in home.root.iterdir()}
    assert left <= {
        "ledger.sqlite", "ledger.sqlite.head", "ledger.sqlite.moved", "members", "names", "policy.yaml", "plans",
        "identity", "site-public-key.pem",
    }  # fmt: skip
    assert [path.name for path in home.identity.iterdir()] == ["split.key"]
    assert {path.name: path.read_bytes() for path in second.folder.iterdir()} == {"binding.json": bound}
    everything = b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())
    assert all(data not in everything for name, data in secret if name != "split.key" and b"PRIVATE" in data)
    assert (home.root / "site-public-key.pem").read_bytes() == public
    code, _, said = say("sfumato-site", "ledger", "show", "--home", home.root)
    assert code == 0 and "training of 'spectral'" in said and "this site's policy, after the gate" in said
    with pytest.raises(Exception, match="was removed"):
        charge(home, parse({**VALUES, "study": "another"}, Plan, "plan"))


def test_nothing_is_removed_while_the_site_runs(ingested, say):
    home = ingested
    with exclusive(home.link, "a node"):
        code, line, _ = say("sfumato-site", "remove", "--home", home.root, "--yes")
    assert code != 0 and "already running" in line and len(images(home)) == 16

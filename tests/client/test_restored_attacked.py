"""A ledger that was restored: charges under a pseudonym, people who were charged since, plans accepted since."""

from __future__ import annotations

import shutil

import pytest
from support.lone_site import STUDY, TRAIN, VALUES, make_home_at
from support.ward import Ward

from sfumato_client.ledger.behind import stop_ledger
from sfumato_client.ledger.copies import mark_restored, read_restored
from sfumato_client.site import recovery
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import ingest_source
from sfumato_client.site.names import draw_pseudonym
from sfumato_client.site.restored import hear_of
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.accounting.members import Members
from sfumato_common.errors import DataError, LedgerError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

LEDGER = ("ledger.sqlite", "ledger.sqlite.head", "members")


def put_back(home, folder, files=LEDGER):
    """The ledger of before in the place of this one, as from a file backup of these alone."""
    for name in files:
        there, here = folder / name, home.root / name
        if there.is_dir():
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(there, here)
        elif there.exists():
            here.write_bytes(there.read_bytes())
        elif here.is_dir():
            shutil.rmtree(here)


def test_charges_of_a_study_that_knows_the_site_by_a_pseudonym_are_put_back_too(tmp_path):
    """The home itself has no pseudonym: only the coordinator of the second study knows the site by one."""
    home = make_home_at(tmp_path / "alder", name="pseudonym-per-study")
    link = SiteHome(home.root, "second")
    draw_pseudonym(link)
    name = link.policy().site
    items = [{"model": "spectral", "images": 4}]
    plan = parse({**VALUES, "sites": {name: {"nominal_patients": 40}}, "release": items}, Plan, "plan")
    link.pin(plan)
    stop_ledger(home.ledger_file, plan.digest, "formal:1 spectral:1")
    lost = recovery.recoveries(home)
    assert [(item.plan.digest, sorted(item.answers)) for item in lost] == [
        (plan.digest, [("formal", 1), ("spectral", 1)])
    ]
    recovery.recover(home, lost)
    with home.open_ledger() as ledger:
        assert [(entry.purpose, entry.round) for entry in ledger.entries()] == [("spectral", 1)]


def test_who_was_first_charged_since_the_backup_stays_in_the_cohort_of_then(tmp_path, monkeypatch):
    home, ward = make_home_at(tmp_path / "alder"), Ward(tmp_path / "ward", monkeypatch)
    for name in TRAIN[:4]:
        ward.put(f"{name}.png", name)
    ingest_source(home, ward.source(), STUDY, workers=1)
    home.pin(STUDY)
    with home.open_ledger():
        pass
    shutil.copytree(home.root, tmp_path / "before")
    with home.open_ledger() as ledger:
        ledger.reserve(study=STUDY.study, plan_hash=STUDY.digest, purpose="spectral", round=1, cohort="train",
                       event=GaussianRelease(20.0))  # fmt: skip
        home.charged_cohorts(STUDY, ledger, "train")
        paid = home.open_store().members("train")
        moved = Members(paid.key, frozenset(), paid.train)
        with pytest.raises(DataError, match="stays in the cohort"):
            ledger.check_members(moved)
    put_back(home, tmp_path / "before")
    with home.open_ledger() as ledger:
        ledger.check_members(moved)  # nobody is known any more
    stop_ledger(home.ledger_file, STUDY.digest, "spectral:1")
    recovery.recover(home, recovery.recoveries(home))
    with home.open_ledger() as ledger, pytest.raises(DataError, match="stays in the cohort"):
        ledger.check_members(moved)


def test_a_plan_that_is_accepted_again_after_a_restore_is_heard_before_anything_is_charged(tmp_path):
    """It was accepted, and charged, since the backup: the other study's coordinator cannot vouch for it."""
    home, later = make_home_at(tmp_path / "alder"), parse({**VALUES, "study": "later"}, Plan, "plan")
    home.pin(STUDY)
    with home.open_ledger():
        pass
    mark_restored(home.ledger_file, "2026-01-01T00:00:00+00:00", "restored from a backup", [STUDY.digest])
    home.pin(later)
    hear_of(home, STUDY.digest)
    with home.open_ledger() as ledger, pytest.raises(LedgerError, match="restored"):
        ledger.reserve(study=STUDY.study, plan_hash=STUDY.digest, purpose="spectral", round=1, cohort="train",
                       event=GaussianRelease(20.0))  # fmt: skip
    hear_of(home, later.digest)
    assert read_restored(home.ledger_file) is None

"""The ends of a home: a removal that is killed and given again, and an acceptance that is taken back too late."""

from __future__ import annotations

import pytest
from support.lone_site import STUDY, make_home_at

from sfumato_client.ledger.approvals import approval
from sfumato_client.ledger.copies import close_ledger
from sfumato_client.site import ending
from sfumato_client.site.ending import remove, unaccept
from sfumato_client.site.home import SiteHome
from sfumato_client.site.stewards import add_steward
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import BusyError, LedgerError, PolicyRefusal
from sfumato_common.locks import in_turn


@pytest.fixture
def home(tmp_path) -> SiteHome:
    made = make_home_at(tmp_path / "alder")
    made.incoming.mkdir()
    (made.incoming / "0.dcm").write_bytes(b"pixels of a patient")
    return made


@pytest.mark.parametrize("after", range(4))
def test_a_removal_that_was_killed_goes_on_when_it_is_given_again(home, monkeypatch, after):
    public, overwrite, done = load_identity(home.identity).signing_public, ending.overwrite, []

    def dying(path):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(path)
        overwrite(path)

    monkeypatch.setattr(ending, "overwrite", dying)
    with pytest.raises(KeyboardInterrupt):
        remove(home)
    assert (home.incoming / "0.dcm").exists()
    monkeypatch.setattr(ending, "overwrite", overwrite)
    remove(home)
    assert not home.incoming.exists()
    assert [path.name for path in home.identity.iterdir()] == ["split.key"]
    assert (home.root / "site-public-key.pem").read_bytes() == public


def test_a_plan_whose_release_was_approved_is_not_taken_back_though_it_charged_nothing(home):
    """Of given models nothing is charged; its packages may have left, and the folder of its release is gone."""
    home.pin(STUDY)
    sign = load_identity(home.identity).sign_approval
    with home.open_ledger() as ledger:
        ledger.approve(approval(STUDY.digest, "formal", "no-gate", b"package", ("e" * 64,), sign))
    with pytest.raises(PolicyRefusal):
        unaccept(home, STUDY.study)
    assert home.readable_plans() == [STUDY]


def test_a_plan_is_not_taken_back_while_a_job_works_on_its_question(home):
    home.pin(STUDY)
    with in_turn(home.turns(STUDY)), pytest.raises(BusyError, match="still worked on"):
        unaccept(home, STUDY.study)
    assert home.readable_plans() == [STUDY]
    assert unaccept(home, STUDY.study) == [STUDY]


def test_nobody_says_anything_in_a_ledger_that_lives_elsewhere(home):
    """A stewards' page may stay open while the home is handed over."""
    add_steward(home, "ada", b"a long one of ada")
    close_ledger(home.ledger_file, "2026-01-01", "a" * 32)
    with pytest.raises(LedgerError, match="handed over"):
        add_steward(home, "grace", b"another of grace's", "ada", b"a long one of ada")

"""A ledger without home or plan: terms in its first row, runs under statements, certificates that are recomputed."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest
import yaml
from support.studies import POLICY

from sfumato import ledger
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.standalone import open_ledger, read_keys
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import Declared, GaussianRelease, Unprotected
from sfumato_common.errors import (
    BudgetExceeded,
    ConfigError,
    DataError,
    EgressRefused,
    LedgerError,
    PolicyRefusal,
    VerificationError,
)
from sfumato_common.mechanisms.noise import SecureNoise, TestNoise
from sfumato_common.study.policy import Budget

PATIENTS = ["anna", "berta", "carl"]
STATED = ledger.Tool("somebody's program", "stated", ("It draws the noise that it says.",))
ONE = GaussianRelease(2.0)


@pytest.fixture
def path(tmp_path):
    ledger.create_ledger(tmp_path / "book.sqlite", site="alder", epsilon=4.0, delta=1e-5)
    return tmp_path / "book.sqlite"


def opened(path, **more):
    words = {"study": "triage", "purpose": "counts by age", "patients": PATIENTS, **more}
    return ledger.open_run(path, **words)


def spend(run, multiplier=2.0):
    with run.charged([GaussianRelease(multiplier)]) as charge:
        return charge.seal({"sum": charge.recorder.gaussian(np.ones(3), 1.0, multiplier)})


def test_what_was_charged_is_what_the_accountant_says_and_survives_the_process(path):
    with opened(path) as run:
        spend(run)
    with opened(path) as run:
        spend(run)
        assert [entry.round for entry in run.charges()] == [1, 2]
        assert run.ledger.spent_epsilon("train") == epsilon([ONE, ONE], 1e-5)


def test_over_budget_nothing_is_read_and_nothing_is_charged(path):
    with opened(path) as run:
        spend(run)
        with pytest.raises(BudgetExceeded, match="nothing was touched"), run.charged([GaussianRelease(0.5)]):
            pytest.fail("the body ran")
        assert len(run.charges()) == 1


def test_a_ledger_that_was_closed_is_told_in_a_line(path):
    with opened(path) as run:
        spend(run)
    with pytest.raises(LedgerError, match="was closed before"), run.charged([ONE]):
        pytest.fail("the body ran")


def test_runs_share_one_budget(path):
    with opened(path) as run:
        spend(run, 1.5)
    with opened(path, study="another") as run, pytest.raises(BudgetExceeded), run.charged([GaussianRelease(1.5)]):
        pytest.fail("the body ran")


def test_a_runs_own_limit_is_held_below_the_ledgers_budget(path):
    with opened(path, epsilon=1.0) as run, pytest.raises(BudgetExceeded, match="promises at most"), run.charged([ONE]):
        pytest.fail("the body ran")


def test_what_is_planned_ahead_must_fit_before_the_first_step(path):
    with opened(path) as run, pytest.raises(BudgetExceeded), run.charged([ONE], ahead=[ONE] * 10):
        pytest.fail("the body ran")


def test_another_mechanism_than_the_charged_one_is_not_sealed(path):
    with opened(path) as run:
        with pytest.raises(EgressRefused), run.charged([ONE]) as charge:
            charge.seal({"sum": charge.recorder.gaussian(np.ones(3), 1.0, 4.0)})
        assert run.ledger.unsettled_charges() == [run.charges()[0].number]
        assert run.certificate().open == 1


def test_patients_stay_in_their_cohort_and_no_identifier_is_on_the_disk(path):
    with opened(path) as run:
        spend(run)
    with opened(path, patients=["carl"], holdout=["anna"]) as run:
        with pytest.raises(DataError, match="stays in the cohort"), run.charged([ONE]):
            pytest.fail("the body ran")
        assert len(run.charges()) == 1, "the run is the same one: the same words"
    stored = b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())
    assert not [name for name in PATIENTS if name.encode() in stored]


@pytest.mark.parametrize(("train", "holdout"), [(["anna"], ["anna"]), ([" "], []), ([7], [])])
def test_a_patient_has_one_cohort_and_an_identifier(path, train, holdout):
    with pytest.raises(DataError, match="patient"), opened(path, patients=train, holdout=holdout):
        pytest.fail("it was opened")


def test_a_certificate_is_recomputed_from_the_export_and_signed(path, tmp_path):
    with opened(path) as run:
        spend(run)
        statement = run.statement
    stated = ledger.certify(path, statement, tmp_path / "out")
    data, signature = ((tmp_path / "out" / name).read_bytes() for name in (ledger.CERTIFICATE, ledger.SIGNATURE))
    report = ledger.check_run(ledger.export_ledger(path), data, signature, ledger.public_key(path))
    report.require()
    assert report.signature_checked
    assert report.unsettled == 0
    assert stated.unit == "patient"
    assert stated.adjacency == "add-remove"
    assert stated.epsilon.patient.add_remove >= epsilon([ONE], 1e-5)
    assert b"anna" not in data
    assert "4.0" not in json.dumps(json.loads(data)["epsilon"]), "the ledger's budget stays with its keeper"


def forged(data, **fields):
    return (json.dumps({**json.loads(data), **fields}, indent=2) + "\n").encode()


def test_a_certificate_that_was_changed_or_is_anothers_is_refused(path, tmp_path):
    with opened(path) as run:
        spend(run)
        statement = run.statement
    ledger.certify(path, statement, tmp_path / "out")
    data, signature = ((tmp_path / "out" / name).read_bytes() for name in (ledger.CERTIFICATE, ledger.SIGNATURE))
    export, key = ledger.export_ledger(path), ledger.public_key(path)
    with pytest.raises(VerificationError, match="signature"):
        ledger.check_run(export, forged(data, charges=2), signature, key)
    with pytest.raises(LedgerError, match="other charges"):
        ledger.check_run(export, forged(data, charges=2), signature, None)
    said = {**json.loads(data)["statement"], "purpose": "something harmless"}
    with pytest.raises(VerificationError, match="another run"):
        ledger.check_run(export, forged(data, statement=said), signature, None)
    with pytest.raises(VerificationError, match="noise"):
        ledger.check_run(export, forged(data, noise="test"), signature, None)
    ledger.create_ledger(tmp_path / "other.sqlite", site="alder", epsilon=4.0, delta=1e-5)
    with pytest.raises(LedgerError, match="does not hold the row"):
        ledger.check_run(ledger.export_ledger(tmp_path / "other.sqlite"), data, signature, key)


def test_a_certificate_that_understates_is_found_by_the_second_accountant(path, tmp_path):
    with opened(path) as run:
        spend(run)
        data = run.certificate().encode()
    lower = json.loads(data)["epsilon"]
    lower["train"]["add_remove"] = lower["patient"]["add_remove"] = 0.5
    report = ledger.check_run(ledger.export_ledger(path), forged(data, epsilon=lower), b"", None)
    with pytest.raises(LedgerError, match=r"is 0\.5"):
        report.require()


def test_stated_mechanisms_are_charged_first_and_said_to_be_unseen(path):
    with opened(path, tool=STATED) as run:
        with run.stated([ONE, Declared("the number of patients", 32)]) as charge:
            assert len(run.charges()) == 2
            charge.keep(b"what it made")
        stated = run.certificate()
        assert stated.covers.startswith("STATED, NOT SEEN")
        assert [item.bits for item in stated.declared] == [32]
        assert stated.open == 0
        with pytest.raises(PolicyRefusal, match="stated"), run.charged([ONE]):
            pytest.fail("the body ran")
        with pytest.raises(PolicyRefusal, match="bare"), run.stated([Unprotected("weights")]):
            pytest.fail("the body ran")
        with pytest.raises(EgressRefused, match="nothing was kept"), run.stated([GaussianRelease(9.0)]):
            pass
        assert run.certificate().open == 1


def test_noise_that_can_be_predicted_voids_the_certificate(path):
    with opened(path, noise=TestNoise(1)) as run:
        spend(run)
        stated = run.certificate()
    assert stated.covers.startswith("TEST NOISE")
    assert not stated.formal
    with opened(path) as run, pytest.raises(PolicyRefusal, match="predicted"):
        ledger.Run(run.ledger, run.statement, run._members, TestNoise(1))


def test_terms_stand_in_the_chain(path):
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER no_change")
        connection.execute("UPDATE entries SET body = replace(body, '4.0', '40.0') WHERE number = 0")
    with pytest.raises(LedgerError, match="altered at entry 0"):
        open_ledger(path)


def test_a_ledger_that_is_gone_behind_its_head_is_not_begun_anew(path):
    path.unlink()
    with pytest.raises(LedgerError, match="gone"):
        open_ledger(path)
    with pytest.raises(LedgerError, match="begun before"):
        ledger.create_ledger(path, site="alder", epsilon=4.0, delta=1e-5)
    path.with_name(path.name + ".head").unlink()
    with pytest.raises(LedgerError, match="keys of a ledger"):
        ledger.create_ledger(path, site="alder", epsilon=4.0, delta=1e-5)


@pytest.mark.parametrize("terms", [{"epsilon": -1.0}, {"delta": 0.5}, {"site": "Not A Name"}])
def test_terms_that_mean_nothing_are_refused(tmp_path, terms):
    with pytest.raises(ConfigError):
        ledger.create_ledger(tmp_path / "x.sqlite", **{"site": "alder", "epsilon": 1.0, "delta": 1e-5, **terms})
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_ledger_is_told(tmp_path):
    with pytest.raises(LedgerError, match="there is no ledger"):
        open_ledger(tmp_path / "none.sqlite")
    with Ledger.open(tmp_path / "site.sqlite", Budget(epsilon=1.0, delta=1e-5), site="north"):
        pass
    with pytest.raises(LedgerError, match="no terms in its first row"):
        open_ledger(tmp_path / "site.sqlite")


def test_keys_are_its_owners_alone_and_a_damaged_one_is_told(path):
    for name in (".signing.pem", ".patients.key"):
        assert path.with_name(path.name + name).stat().st_mode & 0o077 == 0
    path.with_name(path.name + ".patients.key").write_text("beef")
    with pytest.raises(ConfigError, match="damaged"):
        read_keys(path)


def test_a_sites_own_ledger_takes_runs_beside_its_studies(tmp_path):
    from sfumato_client.site.home import SiteHome
    from sfumato_common.crypto.identity import create_identity

    home = SiteHome(tmp_path / "home")
    home.root.mkdir()
    (home.root / "policy.yaml").write_text(yaml.safe_dump({**POLICY, "site": "north"}).replace("1e-05", "1.0e-5"))
    create_identity(home.identity, "north")
    (home.identity / "split.key").write_text("11" * 32)
    with home.open_ledger() as book:
        book.reserve(study="s", plan_hash="0" * 64, purpose="spectral", round=1, cohort="train", event=ONE)
    with opened(home.root) as run:
        spend(run)
        assert run.ledger.spent_epsilon("train") == epsilon([ONE, ONE], run.ledger.budget.delta)
        statement = run.statement
    stated = ledger.certify(home.root, statement, tmp_path / "out")
    data, signature = ((tmp_path / "out" / name).read_bytes() for name in (ledger.CERTIFICATE, ledger.SIGNATURE))
    ledger.check_run(ledger.export_ledger(home.root), data, signature, ledger.public_key(home.root)).require()
    assert stated.charges == 1, "the certificate is the run's, not the study's"


def test_a_wrong_word_is_one_clear_line(path):
    with pytest.raises(ConfigError, match="a run's statement: 'study'"), opened(path, study="Not A Name"):
        pytest.fail("it was opened")
    assert SecureNoise.test is False

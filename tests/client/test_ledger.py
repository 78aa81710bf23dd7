"""The privacy ledger: budget, replay, chain, two writers."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import stat

import pytest

from sfumato_client.ledger import Ledger, admission, book
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import Declared, GaussianRelease, SampledGaussian, event_from_json
from sfumato_common.errors import BudgetExceeded, LedgerError
from sfumato_common.study.policy import Budget

BUDGET = Budget(epsilon=10.0, delta=1e-5)
PLAN_HASH = "ab" * 32
BIT = Declared("a bit", 1)
SEALED = "5e" * 32
fork = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def reserve(ledger, round=1, event=BIT, purpose="gan", cohort="train", plan_hash=PLAN_HASH, **more):
    return ledger.reserve(
        study="s", plan_hash=plan_hash, purpose=purpose, round=round, cohort=cohort, event=event, **more
    )


def open_ledger(path, budget=BUDGET):
    return Ledger.open(path, budget, site="north")


@pytest.fixture
def unit_cost(monkeypatch):
    """Accounting that costs 1 for each step, and counts how often it is asked."""
    calls = []

    def cost(events, delta):
        calls.append(delta)
        return float(sum(getattr(event, "steps", 1) for event in events))

    monkeypatch.setattr(admission, "epsilon", cost)
    monkeypatch.setattr(book, "epsilon", cost)
    return calls


def test_charges_are_kept_settled_or_not(path):
    with open_ledger(path) as ledger:
        first = reserve(ledger, 1)
        reserve(ledger, 2, cohort="holdout")
        reserve(ledger, 1, plan_hash="cd" * 32)
        ledger.settle(first, SEALED)
    with open_ledger(path) as ledger:
        assert len(ledger.events("train")) == 2
        assert len(ledger.events("train", PLAN_HASH)) == 1
        assert len(ledger.events("train", except_plan=PLAN_HASH)) == 1
        assert ledger.events("holdout") == [BIT]
        assert [(entry.purpose, entry.round) for entry in ledger.entries()] == [("gan", 1), ("gan", 2), ("gan", 1)]
        assert ledger.entries()[0] == first
        assert ledger.spent_epsilon("train") == 0.0
        assert ledger.settled_results() == {first.number: SEALED}
        assert ledger.unsettled_charges() == [entry.number for entry in ledger.entries()[1:]]


def test_budget_is_enforced_by_the_real_accountant(path):
    release = GaussianRelease(1.0)  # epsilon 4.377 at delta 1e-5; two cost 6.65
    with open_ledger(path, Budget(epsilon=6.0, delta=1e-5)) as ledger:
        reserve(ledger, 1, release)
        assert ledger.spent_epsilon("train") == pytest.approx(4.377, abs=0.01)
        with pytest.raises(BudgetExceeded, match="nothing was touched"):
            reserve(ledger, 2, release)
        assert ledger.events("train") == [release]  # a refused charge leaves nothing behind
        reserve(ledger, 2, release, cohort="holdout")  # other patients


def test_budget_counts_all_studies_together(path, unit_cost):
    with open_ledger(path) as ledger:
        for number in range(10):
            reserve(ledger, 1, GaussianRelease(1.0), plan_hash=f"{number:064x}")
        with pytest.raises(BudgetExceeded):
            reserve(ledger, 1, GaussianRelease(1.0), plan_hash="f" * 64)
        assert ledger.spent_epsilon("train") == 10.0


def test_a_nan_cost_is_refused(path, monkeypatch):
    monkeypatch.setattr(admission, "epsilon", lambda events, delta: float("nan"))
    with open_ledger(path) as ledger, pytest.raises(BudgetExceeded):
        reserve(ledger, 1, GaussianRelease(1.0))


def test_a_round_runs_once(path):
    with open_ledger(path) as ledger:
        ledger.settle(reserve(ledger, 1), SEALED)
        for _ in range(2):
            with pytest.raises(LedgerError, match="may not run again"):
                reserve(ledger, 1)
        with pytest.raises(LedgerError):
            reserve(ledger, 1, cohort="holdout")  # neither under another cohort
        reserve(ledger, 1, purpose="flow")


@pytest.mark.parametrize(
    "event",
    [
        SampledGaussian(1.0, 0.1, -100),
        SampledGaussian(1.0, 0.1, 0),
        SampledGaussian(1.0, 0.1, True),
        SampledGaussian(1.0, 1.5, 10),
        SampledGaussian(-1.0, 0.1, 10),
        GaussianRelease(0.0),
        GaussianRelease(float("nan")),
        GaussianRelease(float("inf")),
        Declared("", 1),
        Declared("refund", -1),
        object(),
        None,
    ],
)
def test_impossible_charges_are_refused(path, event):
    with open_ledger(path) as ledger:
        with pytest.raises(LedgerError):
            reserve(ledger, 1, event)
        assert ledger.entries() == []


def test_impossible_cohorts_and_rounds_are_refused(path):
    with open_ledger(path) as ledger:
        with pytest.raises(LedgerError):
            reserve(ledger, 1, cohort="validation")
        with pytest.raises(LedgerError):
            reserve(ledger, -1)


def test_a_plan_is_accounted_once_and_must_fit_whole(path, unit_cost):
    step = SampledGaussian(1.0, 0.1, 2)
    with open_ledger(path) as ledger:
        with pytest.raises(BudgetExceeded):
            reserve(ledger, 1, step, ahead=[step] * 6)  # 12 of 10: would break off in the middle
        reserve(ledger, 1, step, ahead=[step] * 4)
        assert len(unit_cost) == 2
        for number in (2, 3, 4):
            reserve(ledger, number, step)
        assert len(unit_cost) == 2  # within what was found to fit
        reserve(ledger, 5, step)
        assert len(unit_cost) == 3
        with pytest.raises(BudgetExceeded):
            reserve(ledger, 6, step)


def test_what_fitted_is_not_trusted_under_a_smaller_budget_or_other_delta(path, unit_cost):
    step = SampledGaussian(1.0, 0.1, 2)
    with open_ledger(path) as ledger:
        reserve(ledger, 1, step, ahead=[step] * 4)
    with open_ledger(path, Budget(epsilon=3.0, delta=1e-5)) as ledger, pytest.raises(BudgetExceeded):
        reserve(ledger, 2, step)
    with open_ledger(path, Budget(epsilon=10.0, delta=1e-6)) as ledger:
        reserve(ledger, 2, step)
    assert unit_cost == [1e-5, 1e-5, 1e-6]


def test_what_fitted_does_not_hide_another_plan(path, unit_cost):
    step = SampledGaussian(1.0, 0.1, 2)
    with open_ledger(path) as ledger:
        reserve(ledger, 1, step, ahead=[step] * 5)
        reserve(ledger, 1, step, plan_hash="cd" * 32)
        for number in (2, 3, 4):
            reserve(ledger, number, step)
        with pytest.raises(BudgetExceeded):
            reserve(ledger, 5, step)


def test_settling_needs_an_open_reservation_of_this_ledger(path, tmp_path):
    with open_ledger(path) as ledger, open_ledger(tmp_path / "other.sqlite") as other:
        foreign = reserve(other, 7)
        with pytest.raises(LedgerError):
            ledger.settle(foreign, SEALED)
        own = reserve(ledger, 1)
        ledger.settle(own, SEALED)
        with pytest.raises(LedgerError, match="settled"):
            ledger.settle(own, SEALED)


def test_the_file_is_the_owners_and_append_only(path):
    with open_ledger(path) as ledger:
        reserve(ledger, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as raw:
        for statement in ("UPDATE entries SET body = '{}'", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                raw.execute(statement)
    raw.close()


def tamper(path, *statements):
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("DROP TRIGGER no_change")
        raw.execute("DROP TRIGGER no_removal")
        for statement in statements:
            assert raw.execute(statement).rowcount > 0
    raw.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE entries SET body = replace(body, '\"bits\":1', '\"bits\":2') WHERE number = 2"],
        ["UPDATE entries SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE number = 4"],
        ["DELETE FROM entries WHERE number = 2"],
        ["DELETE FROM entries WHERE number = 0"],
        ["DELETE FROM entries WHERE number = 4"],
        ["DELETE FROM entries WHERE number > 1"],
        ["DELETE FROM entries WHERE number = 2", "UPDATE entries SET number = number - 1 WHERE number > 2"],
        [
            "UPDATE entries SET number = 99 WHERE number = 2",
            "UPDATE entries SET number = 2 WHERE number = 3",
            "UPDATE entries SET number = 3 WHERE number = 99",
        ],
        ["INSERT INTO entries VALUES (5, '{}', 'x')"],
    ],
)
def test_tampering_is_found(path, statements):
    with open_ledger(path) as ledger:
        for number in range(4):
            reserve(ledger, number)
        ledger.verify()
    tamper(path, *statements)
    with pytest.raises(LedgerError):
        open_ledger(path)


def test_a_rehashed_short_chain_a_removed_ledger_and_a_removed_head_are_found(path):
    with open_ledger(path) as ledger:
        reserve(ledger, 1)
    kept = path.read_bytes()
    with open_ledger(path) as ledger:
        reserve(ledger, 2)
    path.write_bytes(kept)  # an old copy, whole in itself
    with pytest.raises(LedgerError, match="end is missing"):
        open_ledger(path)
    path.unlink()
    with pytest.raises(LedgerError, match="gone"):
        open_ledger(path)
    path.write_bytes(kept)
    (path.parent / "ledger.sqlite.head").unlink()
    with pytest.raises(LedgerError, match="no head"):
        open_ledger(path)


def test_tampering_while_open_is_found_by_the_next_charge(path):
    with open_ledger(path) as ledger:
        reserve(ledger, 1)
        reserve(ledger, 2)
        tamper(path, "DELETE FROM entries WHERE number = 1")
        with pytest.raises(LedgerError):
            reserve(ledger, 3)


def test_another_sites_ledger_and_a_file_that_is_none_are_refused(path, tmp_path):
    open_ledger(path).close()
    with pytest.raises(LedgerError, match="south"):
        Ledger.open(path, BUDGET, site="south")
    other = tmp_path / "noise.sqlite"
    other.write_bytes(b"not a data base at all " * 100)
    with pytest.raises(LedgerError):
        open_ledger(other)


def _race(path, plan_hash, results):
    admitted = 0
    with open_ledger(path) as ledger:
        for number in range(15):
            try:
                reserve(ledger, number, GaussianRelease(1.0), plan_hash=plan_hash)
                admitted += 1
            except BudgetExceeded:
                pass
    results.put(admitted)


def test_two_processes_share_one_chain_and_one_budget(path, unit_cost):
    results = fork.Queue()
    children = [fork.Process(target=_race, args=(path, digit * 64, results)) for digit in "12"]
    for child in children:
        child.start()
    admitted = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    with open_ledger(path) as ledger:
        ledger.verify()
        assert len(ledger.entries()) == sum(admitted) == 10
    head = json.loads((path.parent / "ledger.sqlite.head").read_bytes())
    assert head["number"] == 10


def test_what_is_remembered_as_fitting_is_what_was_composed(path):
    release, step = GaussianRelease(3.0), SampledGaussian(1.0, 0.05, 10)
    with open_ledger(path) as ledger:
        reserve(ledger, 1, release, purpose="spectral", ahead=[release, step, step])
        body = json.loads(ledger._rows()[-1].body)
    events = [event_from_json(value) for value in body["fits"]["events"]]
    assert sorted(events, key=repr) == [release, SampledGaussian(1.0, 0.05, 20)]
    assert body["fits"]["epsilon"] == pytest.approx(epsilon([release, step, step], 1e-5), abs=1e-9)

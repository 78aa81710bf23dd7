"""A charge is one block: on disk before, compared with the disk, sealed once, settled after; or left standing, open."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import numpy as np
import pytest

from sfumato_client.ledger import Ledger, Terms
from sfumato_client.ledger.chain import Row, next_row
from sfumato_client.ledger.export import read_export
from sfumato_common.accounting.events import (
    Declared,
    GaussianRelease,
    LocalLaplace,
    RandomisedResponse,
    SampledGaussian,
    Unprotected,
)
from sfumato_common.errors import BudgetExceeded, EgressRefused, LedgerError, PolicyRefusal
from sfumato_common.files import canonical_json
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import BareRecorder, NoiseRecorder
from sfumato_common.mechanisms.sealed import digest_of
from sfumato_common.study.policy import Budget

PLAN_HASH, ZEROS, ROWS = "ab" * 32, np.zeros(3), np.zeros((4, 3))
BUDGET = Budget(epsilon=20.0, delta=1e-5)
LABELS = np.zeros(4, dtype=np.int64)
RECORDS = [LocalLaplace(1.0), RandomisedResponse(2, 0.5), Declared("labels, taken as public", 4)]


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(
        tmp_path / "ledger.sqlite", BUDGET, site="north", nonprivate_studies=frozenset({"bare"})
    ) as opened:
        yield opened


def terms(purpose="gan", round=1, cohort="train", study="chest", ahead=()):
    return Terms(study, PLAN_HASH, purpose, round, cohort, BUDGET, ahead)


def charged(ledger, events, **where):
    return ledger.charged(terms(**where), events, SecureNoise())


def run(ledger, events, body, **where):
    """The whole block with that body."""
    with charged(ledger, events, **where) as charge:
        body(charge)


def test_every_event_is_on_disk_before_the_body_and_settled_after_it_with_what_was_sealed(ledger):
    with charged(ledger, RECORDS, purpose="release-cadp-flow") as charge:
        entries = ledger.entries()
        assert [(entry.purpose, entry.round, entry.event) for entry in entries] == [
            ("release-cadp-flow", number, event) for number, event in enumerate(RECORDS, start=1)
        ]
        assert ledger.unsettled_charges() == [entry.number for entry in entries]
        charge.recorder.local_laplace(ROWS, 1.0, 1.0, "l1")
        charge.recorder.randomised_response(LABELS, 2, 0.5)
        arrays = {"rows": np.ones((4, 3), np.float32)}
        sealed = charge.seal(arrays)
        sealed.check()
        assert ledger.unsettled_charges() == [entry.number for entry in entries]
    assert ledger.settled_results() == dict.fromkeys([entry.number for entry in entries], digest_of(arrays))
    assert sealed.digest == digest_of(arrays)


def test_a_charge_is_part_of_what_its_plan_charges_in_all(ledger):
    dear = (GaussianRelease(0.3),) * 4
    with pytest.raises(BudgetExceeded):
        run(ledger, [GaussianRelease(0.3)], never, ahead=dear)
    assert ledger.entries() == []


def never(charge):
    raise AssertionError("the body ran")


def ran_nothing(recorder):
    return None


def twice(recorder):
    for _ in range(2):
        recorder.gaussian(ZEROS, 1.0, 2.0)


FAULTS = {
    "nothing": (ran_nothing, "no mechanism ran"),
    "less noise": (lambda recorder: recorder.gaussian(ZEROS, 1.0, 1.0), "not the one"),
    "twice": (twice, "not the one"),
    "another kind": (lambda recorder: recorder.sampled_gaussian(ZEROS, 1.0, 2.0, 1.0), "not the one"),
    "records": (lambda recorder: recorder.k_average(ROWS[None], 1.0, 2.0), "not the one"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_ran_is_held_against_the_disk_and_a_difference_stays_charged_and_open(ledger, fault):
    draw, reason = FAULTS[fault]
    with pytest.raises(EgressRefused, match=reason):
        run(ledger, [GaussianRelease(2.0)], lambda charge: (draw(charge.recorder), charge.seal({"sums": ZEROS})))
    assert ledger.events("train") == [GaussianRelease(2.0)]
    assert ledger.unsettled_charges() == [1] and ledger.settled_results() == {}
    with pytest.raises(LedgerError, match="may not run again"):
        run(ledger, [GaussianRelease(2.0)], never)


def test_draws_of_one_release_together_cost_the_one_that_was_charged(ledger):
    with charged(ledger, [GaussianRelease(2.0)]) as charge:
        charge.recorder.gaussian(ZEROS, 0.6, 2.0 / 0.6)
        charge.recorder.gaussian(ZEROS, 0.8, 2.0 / 0.8)
        charge.seal({"sums": ZEROS})
    with charged(ledger, [SampledGaussian(1.0, 0.1, 3)], round=2) as charge:
        for _ in range(3):
            charge.recorder.sampled_gaussian(ZEROS, 1.0, 1.0, 0.1)
        charge.seal({"update": ZEROS})
    assert not ledger.unsettled_charges()


def honest(charge):
    charge.recorder.gaussian(ZEROS, 1.0, 2.0)
    charge.seal({"sums": ZEROS})


def test_a_body_that_raises_leaves_the_charge_standing(ledger):
    with pytest.raises(ZeroDivisionError):
        run(ledger, [GaussianRelease(2.0)], lambda charge: (honest(charge), 1 / 0))
    assert (ledger.events("train"), ledger.unsettled_charges()) == ([GaussianRelease(2.0)], [1])


def test_a_body_that_seals_nothing_is_refused(ledger):
    with pytest.raises(EgressRefused, match="nothing was sealed"):
        run(ledger, [GaussianRelease(2.0)], lambda charge: charge.recorder.gaussian(ZEROS, 1.0, 2.0))
    with pytest.raises(EgressRefused, match="nothing was sealed"):
        run(ledger, [], ran_nothing, purpose="release-dp-sampling")
    assert ledger.unsettled_charges() == [1]


def late(charge):
    charge.seal(b"yes")
    charge.recorder.gaussian(ZEROS, 1.0, 2.0)


def late_and_careless(charge):
    with contextlib.suppress(EgressRefused):
        late(charge)


def test_one_result_is_sealed_and_nothing_is_drawn_after_it(ledger):
    with pytest.raises(EgressRefused, match="seals one result"):
        run(ledger, [Declared("a bit", 1)], lambda charge: (charge.seal(b"yes"), charge.seal(b"no")))
    for body in (late, late_and_careless):
        with pytest.raises(EgressRefused, match="after the result was sealed"):
            run(ledger, [], body, purpose="release-dp-sampling")
    assert ledger.unsettled_charges() == [1]


def records(charge):
    charge.recorder.local_laplace(ROWS, 1.0, 1.0, "l1")
    charge.recorder.randomised_response(LABELS, 2, 0.5)
    charge.seal({"rows": ROWS})


def test_a_row_that_is_not_on_disk_any_more_pays_for_nothing(ledger, monkeypatch):
    entries = Ledger.entries
    monkeypatch.setattr(Ledger, "entries", lambda self: entries(self)[:-1])
    with pytest.raises(EgressRefused, match="without a reservation"):
        run(ledger, RECORDS, records)
    assert len(entries(ledger)) == len(ledger.unsettled_charges()) == 3


def test_what_the_disk_says_counts_and_not_what_was_asked_for(ledger, tmp_path):
    def rewritten(charge):
        raw = sqlite3.connect(tmp_path / "ledger.sqlite")
        with raw:
            raw.execute("DROP TRIGGER no_change")
            assert raw.execute("UPDATE entries SET body = replace(body, '2.0', '9.0') WHERE number = 1").rowcount
        raw.close()
        honest(charge)

    with pytest.raises(LedgerError, match="altered"):
        run(ledger, [GaussianRelease(2.0)], rewritten)


def test_a_result_is_bound_to_its_own_charge(ledger):
    with charged(ledger, [GaussianRelease(2.0)]) as one:
        one.recorder.gaussian(ZEROS, 1.0, 2.0)
        sealed = one.seal({"sums": ZEROS})
        assert one.paid is not None
        one.paid.require(sealed.executed, sealed.binding)
    with charged(ledger, [GaussianRelease(2.0)], round=2) as other:
        other.recorder.gaussian(ZEROS, 1.0, 2.0)
        assert other.paid is None
        other.seal({"sums": ZEROS})
        with pytest.raises(EgressRefused, match="another reservation"):
            other.paid.require(sealed.executed, sealed.binding)


def test_without_privacy_the_recorder_lets_sums_pass_and_nothing_else_is_charged_like_it(ledger):
    with pytest.raises(PolicyRefusal):
        run(ledger, [Unprotected("gan")], never)
    with charged(ledger, [Unprotected("gan")], study="bare") as charge:
        assert type(charge.recorder) is BareRecorder
        assert np.array_equal(charge.recorder.sampled_gaussian(ZEROS + 7, 1.0, 1.0, 0.1), ZEROS + 7)
        charge.seal({"update": ZEROS})
    with charged(ledger, [Declared("images", 9)], study="bare", round=2) as charge:
        assert type(charge.recorder) is NoiseRecorder
        charge.seal(b"images")
    assert not ledger.unsettled_charges()


def test_ledgers_of_older_versions_open_verify_and_are_read_without_digests(ledger, tmp_path):
    with charged(ledger, [GaussianRelease(2.0)]) as charge:
        charge.recorder.gaussian(ZEROS, 1.0, 2.0)
        charge.seal({"sums": ZEROS})
    # the same rows as the version before wrote them: a settlement without the digest
    rows: list[Row] = []
    for row in ledger._rows():
        value = dict(row.value)
        value.pop("sha256", None)
        rows.append(next_row(rows, value.pop("kind"), {key: v for key, v in value.items() if key != "number"}))
    old = tmp_path / "old.sqlite"
    with Ledger.open(old, ledger.budget, site="north"):
        pass
    raw = sqlite3.connect(old)
    with raw:
        raw.execute("DROP TRIGGER no_removal")
        raw.execute("DELETE FROM entries")
        raw.executemany("INSERT INTO entries VALUES (?, ?, ?)", [(row.number, row.body, row.hash) for row in rows])
    raw.close()
    (tmp_path / "old.sqlite.head").write_bytes(canonical_json({"number": rows[-1].number, "hash": rows[-1].hash}))
    with Ledger.open(old, ledger.budget, site="north") as opened:
        opened.verify()
        assert (opened.settled_results(), opened.unsettled_charges()) == ({1: None}, [])
        assert read_export(opened.export()).settled == {1: None}
        with charged(opened, [Declared("a bit", 1)], round=2) as charge:
            charge.seal(b"yes")
        assert read_export(opened.export()).settled == {1: None, 3: digest_of(b"yes")}


@pytest.mark.parametrize("fields", [{"closes": "1"}, {"closes": 1, "sha256": "5e"}, {"closes": 1, "sha256": 5}])
def test_a_settlement_that_means_nothing_is_refused_also_in_a_chain_that_holds(ledger, fields):
    with charged(ledger, [Declared("a bit", 1)]) as charge:
        charge.seal(b"yes")
    value = json.loads(ledger.export())
    kept = [Row(**row) for row in value["rows"][:-1]]
    row = next_row(kept, "settle", fields)
    value["rows"][-1] = {"number": row.number, "body": row.body, "hash": row.hash}
    value["head"] = {"number": row.number, "hash": row.hash}
    with pytest.raises(LedgerError, match="settles nothing"):
        read_export(canonical_json(value))

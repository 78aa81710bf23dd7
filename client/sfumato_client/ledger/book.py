"""The privacy ledger: what each study took from the site's patients, over all studies, under one budget.

A charge is on disk before `reserve` returns, so a crash at any moment counts too much, never too little. A patient is
bound to one cohort at the first charge (`members.py`), so what a patient has paid is the larger of the two cohorts'
totals. The chain shows alteration; it is no defence against someone who may rewrite all the site's files.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from sfumato_client.ledger.admission import admit, admit_unprotected
from sfumato_client.ledger.approvals import Approval, approval_rows, approvals_by_part
from sfumato_client.ledger.behind import Answer, Owed, recovery_rows, require_current, unknown_answers
from sfumato_client.ledger.certificate import certificate_of
from sfumato_client.ledger.chain import (
    FORMAT,
    Reservation,
    Row,
    check_chain,
    check_spend,
    next_row,
    reservation,
    settled_results,
)
from sfumato_client.ledger.charged import Charge, Terms, charged
from sfumato_client.ledger.export import write_export
from sfumato_client.ledger.head import check_head, head_of, head_path, read_head, write_head
from sfumato_client.ledger.members import check_members, members_folder, read_members, write_new_members
from sfumato_client.ledger.promised import begun, promised
from sfumato_client.ledger.storage import begin, connect, insert, now, read_rows, transaction
from sfumato_common.accounting.accountant import CohortCosts, cohort_costs, epsilon
from sfumato_common.accounting.events import Cohort, Declared, Event, Unprotected, event_to_json
from sfumato_common.accounting.members import Members
from sfumato_common.errors import BusyError, LedgerError
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.study.certificate import Certificate, Noise, stated_costs
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Budget
from sfumato_common.study.words import Part


class Ledger:
    """A site's spends over all studies; made by `Ledger.open`, closed by `close` or a `with` block."""

    # what those of them that are under way will still charge is kept for them: see `promised.py`
    accepted: Collection[Plan] = ()
    # of the names under which plans know this site beside its own: see `sfumato_common/crypto/pseudonyms.py`
    bindings: Collection[str] = ()

    def __init__(
        self, connection: sqlite3.Connection, path: Path, budget: Budget, site: str, nonprivate_studies: frozenset[str]
    ) -> None:
        self._connection, self._path, self.budget, self.site = connection, path, budget, site
        self._nonprivate, self.names = nonprivate_studies, [site]

    @classmethod
    def open(cls, path: Path, budget: Budget, *, site: str, nonprivate_studies: frozenset[str] = frozenset()) -> Ledger:
        """The ledger at `path`, begun if there is none; verified. Policy lets `nonprivate_studies` pass the budget.

        Raises LedgerError when it was altered, cut short, removed, or belongs to another site; BusyError when locked.
        """
        if not path.exists() and head_path(path).exists():
            raise LedgerError("the privacy ledger is gone but its head is there; restore it from a backup")
        ledger = cls(connect(path), path, budget, site, nonprivate_studies)
        try:
            begin(ledger._connection, next_row([], "genesis", {"format": FORMAT, "site": site, "at": now()}))
            rows = ledger._rows()
            if read_head(path) != head_of(rows):
                ledger._advance_head()  # a crash came between an entry and its head
        except BaseException:
            ledger.close()
            raise
        return ledger

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing is pending, every entry was durable when it was made."""
        self._connection.close()

    def reserve(
        self,
        *,
        study: str,
        plan_hash: str,
        purpose: str,
        round: int,
        cohort: Cohort,
        event: Event,
        ahead: Iterable[Event] = (),
        limit: Budget | None = None,
    ) -> Reservation:
        """Charge `event` to `cohort`, durably, before the data is touched.

        `ahead` is everything that this plan charges the cohort in all: it must fit as well, and later charges within it
        need no new accounting. `limit` is what the plan itself says that it costs a patient. Raises BudgetExceeded when
        all charges of the cohort together would pass the budget, or those of this plan its limit; PolicyRefusal for a
        charge without privacy by a study that policy does not name, as no budget covers it; LedgerError when this round
        was charged before, as running it again draws fresh noise and costs again, or when the ledger is behind.
        """
        check_spend(cohort, event, round)
        require_current(self._path)
        fields: dict[str, Any] = {
            "study": study,
            "plan_hash": plan_hash,
            "purpose": purpose,
            "round": round,
            "cohort": cohort,
            "event": event_to_json(event),
            "at": now(),
        }
        with transaction(self._connection):
            rows = self._rows()
            entries = _reservations(rows)
            if any((entry.plan_hash, entry.purpose, entry.round) == (plan_hash, purpose, round) for entry in entries):
                raise LedgerError(f"'{purpose}' round {round} of this plan was charged before: it may not run again")
            if isinstance(event, Unprotected):
                admit_unprotected(study, self._nonprivate)
            elif not isinstance(event, Declared):
                mine = [entry for entry in entries if entry.cohort == cohort]
                others = [entry.event for entry in mine if entry.plan_hash != plan_hash]
                others += promised(rows, entries, self.accepted, self.names, cohort, plan_hash)
                own = [entry.event for entry in mine if entry.plan_hash == plan_hash]
                fields |= admit(rows, others, [*own, event], ahead, self.budget, limit)
            row = next_row(rows, "reserve", fields)
            insert(self._connection, row)
        self._advance_head()
        return reservation(row)

    def settle(self, reservation: Reservation, sha256: str) -> None:
        """Note that what was reserved was carried out, and the digest of what was sealed; the charge stays.

        Raises LedgerError when it is not open.
        """
        with transaction(self._connection):
            rows = self._rows()
            if reservation not in _reservations(rows):
                raise LedgerError("a reservation that this ledger did not make cannot be settled")
            if reservation.number in settled_results(rows):
                raise LedgerError(f"entry {reservation.number} is settled already")
            fields = {"closes": reservation.number, "sha256": sha256, "at": now()}
            insert(self._connection, next_row(rows, "settle", fields))
        self._advance_head()

    def bind(self, members: Members) -> None:
        """Bind patients to the cohorts that they are charged in, for good; in the charge, before their data is used.

        Raises DataError when one of them is bound to the other cohort, LedgerError when that cannot be told.
        """
        folder = members_folder(self._path)
        with transaction(self._connection):
            rows = self._rows()
            bound = read_members(folder, rows)
            check_members(bound, members)
            fields = write_new_members(folder, bound, members)
            if fields is not None:
                insert(self._connection, next_row(rows, "bind", {**fields, "at": now()}))
        if fields is not None:
            self._advance_head()

    def check_members(self, members: Members) -> None:
        """Raise what `bind` would, and bind nobody."""
        check_members(read_members(members_folder(self._path), self._rows()), members)

    def charged(
        self, terms: Terms, events: Sequence[Event], noise: NoiseSource, resume: bool = False
    ) -> contextlib.AbstractContextManager[Charge]:
        """The block in which data may be touched: charged on entry, settled on exit; see `charged.py`."""
        return charged(self, terms, events, noise, resume)

    def approve(self, *leaves: Approval) -> None:
        """Keep the approvals of a part's shards, all or none. Raises LedgerError when the part was approved before."""
        with transaction(self._connection):
            for row in approval_rows(self._rows(), leaves, now()):
                insert(self._connection, row)
        self._advance_head()

    def unknown_answers(self, plan_hash: str, answers: Collection[Answer]) -> set[Answer]:
        """Those of `answers` that this ledger never closed: it was restored from a backup, see `behind.py`."""
        return unknown_answers(self._rows(), plan_hash, answers)

    def recover(self, study: str, plan_hash: str, owed: Sequence[Owed], answers: Collection[Answer]) -> None:
        """Put back the charges of answers that left before the ledger was restored from a backup."""
        with transaction(self._connection):
            for row in recovery_rows(self._rows(), study, plan_hash, owed, answers, now()):
                insert(self._connection, row)
        self._advance_head()

    def approvals(self, plan_hash: str) -> dict[Part, list[Approval]]:
        """The approvals of a plan's release by part, shard after shard: a part that has some is approved whole."""
        return approvals_by_part(self._rows(), plan_hash)

    def entries(self) -> list[Reservation]:
        """Every charge in order, settled or not."""
        return _reservations(self._rows())

    def events(self, cohort: Cohort, plan_hash: str | None = None, *, except_plan: str | None = None) -> list[Event]:
        """What `cohort` was charged, settled or not: in all, under one plan, or under all plans but one."""
        return [
            entry.event
            for entry in self.entries()
            if entry.cohort == cohort and plan_hash in (None, entry.plan_hash) and except_plan != entry.plan_hash
        ]

    def committed(self, cohort: Cohort, except_plan: str) -> list[Event]:
        """What all other plans charged `cohort`, and what those under way will still charge."""
        rows = self._rows()
        to_come = promised(rows, _reservations(rows), self.accepted, self.names, cohort, except_plan)
        return [*self.events(cohort, except_plan=except_plan), *to_come]

    def begun(self) -> list[Plan]:
        """The accepted plans of which something was charged and the release is not whole; see `promised.py`."""
        rows = self._rows()
        return begun(rows, _reservations(rows), self.accepted, self.names)

    def spent_epsilon(self, cohort: Cohort) -> float:
        """Epsilon of everything `cohort` was ever charged, at the budget's delta."""
        return epsilon(self.events(cohort), self.budget.delta)

    def costs(self) -> CohortCosts:
        """What all charges together cost, under both adjacencies and cross-checked, at the budget's delta."""
        return cohort_costs(self.events("train"), self.events("holdout"), self.budget.delta)

    def unsettled_charges(self) -> list[int]:
        """Numbers of the charges that were never noted as carried out: a crash, or work in progress; charged alike."""
        rows = self._rows()
        closed = settled_results(rows)
        return [entry.number for entry in _reservations(rows) if entry.number not in closed]

    def settled_results(self) -> dict[int, str | None]:
        """The sha256 of what was sealed under every charge that was carried out; None in rows of older versions."""
        return settled_results(self._rows())

    def export(self) -> bytes:
        """The whole ledger as one file for the data-protection officer; see `export.py`."""
        return write_export(self._rows(), self.site, self.budget, stated_costs(self.costs()), self.bindings)

    def verify(self) -> None:
        """Raise LedgerError at the first entry that was altered, when the end was cut off, or a member file is gone."""
        read_members(members_folder(self._path), self._rows())

    def certificate(self, plan: Plan, *, noise: Noise, publish_total: bool = False) -> Certificate:
        """What a package says about `plan`'s cost here; every number in it is independent of the data.

        With `publish_total` also what all studies cost, at the plan's delta: policy decides.
        """
        return certificate_of(plan, self.entries(), noise, publish_total)

    def _rows(self) -> list[Row]:
        """Every row, chain and end verified."""
        # the head is read first: an entry that another process adds meanwhile must not look like a lost end
        head = read_head(self._path)
        rows = read_rows(self._connection)
        check_chain(rows, self.site)
        check_head(rows, head)
        return rows

    def _advance_head(self) -> None:
        """Write the head beside the ledger; under the lock, so that an older end never replaces a newer one."""
        # whoever holds the lock for so long writes the head of a longer chain
        with contextlib.suppress(BusyError), transaction(self._connection):
            write_head(self._path, self._rows())


def _reservations(rows: Sequence[Row]) -> list[Reservation]:
    return [reservation(row) for row in rows if row.value["kind"] == "reserve"]

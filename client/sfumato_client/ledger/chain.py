"""The ledger's rows as a hash chain (Haber and Stornetta 1991): pure functions of bytes, no disk.

Row n is a canonical JSON body and sha256(hash of row n - 1, body). Row 0 names the site. Changing, removing, adding or
moving any row but the last breaks every later hash; a lost end is found by the head that `book.py` keeps beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, get_args

from sfumato_common.accounting.events import Cohort, Event, check_event, event_from_json
from sfumato_common.errors import LedgerError
from sfumato_common.files import canonical_json

FORMAT = "sfumato-ledger/1"
_NO_HASH = "0" * 64
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Row:
    """One stored line: its number from 0, its body as stored, its hash (lower-case hexadecimal)."""

    number: int
    body: str
    hash: str

    @cached_property
    def value(self) -> Mapping[str, Any]:
        """The body as plain data, read once: every charge goes through all rows several times."""
        return MappingProxyType(dict(json.loads(self.body)))


@dataclass(frozen=True)
class Reservation:
    """One charge: which study took what from which cohort; `number` is its row, `hash` binds it to this ledger."""

    number: int
    hash: str
    study: str
    plan_hash: str
    purpose: str
    round: int
    cohort: Cohort
    event: Event


@dataclass(frozen=True)
class Settlement:
    """That a charge was carried out: the number of its row, and the sha256 of what was sealed under it.

    `sha256` is None in rows that older versions wrote, and of charges that a person put back.
    """

    closes: int
    sha256: str | None


def next_row(rows: Sequence[Row], kind: str, fields: dict[str, Any]) -> Row:
    """The row that follows `rows`.

    `kind` is 'genesis', 'reserve', 'settle', 'approve', 'bind', 'hold', 'recover', 'restore', 'run', 'steward' or
    'decide'.
    """
    number = len(rows)
    body = canonical_json({"number": number, "kind": kind, **fields}).decode("ascii")
    return Row(number, body, _link(rows[-1].hash if rows else _NO_HASH, body))


def check_chain(rows: Sequence[Row], site: str) -> None:
    """Raise LedgerError at the first row that is not where and what it was written as, or for another site's ledger."""
    previous = _NO_HASH
    for number, row in enumerate(rows):
        if row.number != number or row.hash != _link(previous, row.body) or row.value.get("number") != number:
            raise LedgerError(f"the privacy ledger was altered at entry {number}; stop, and restore it from a backup")
        previous = row.hash
    genesis = rows[0].value if rows else {}
    if genesis.get("kind") != "genesis" or genesis.get("format") != FORMAT:
        raise LedgerError("the privacy ledger has no beginning that this version knows; stop and inspect it")
    if genesis.get("site") != site:
        raise LedgerError(f"this privacy ledger is not the one of site '{site}'; check the policy's site name")


def reservation(row: Row) -> Reservation:
    """A 'reserve' row as a record."""
    value = row.value
    return Reservation(
        row.number,
        row.hash,
        value["study"],
        value["plan_hash"],
        value["purpose"],
        value["round"],
        value["cohort"],
        event_from_json(value["event"]),
    )


def settlement(row: Row) -> Settlement:
    """A 'settle' row as a record."""
    value = row.value
    closes, sha256 = value["closes"], value.get("sha256")
    if type(closes) is not int or not (sha256 is None or _HASH.fullmatch(str(sha256))):
        raise LedgerError(f"entry {row.number} of the privacy ledger settles nothing; use the version that wrote it")
    return Settlement(closes, sha256)


def settled_results(rows: Sequence[Row]) -> dict[int, str | None]:
    """What was sealed under every charge that was carried out: its sha256 by the charge's number."""
    found = [settlement(row) for row in rows if row.value["kind"] == "settle"]
    return {item.closes: item.sha256 for item in found}


def check_spend(cohort: Cohort, event: Event, round_number: int) -> None:
    """Raise LedgerError for a charge that means nothing: a negative step count must not pay anything back."""
    if cohort not in get_args(Cohort):
        raise LedgerError("a charge names a cohort that does not exist; it is 'train' or 'holdout'")
    if type(round_number) is not int or round_number < 0:
        raise LedgerError("a charge's round must be a whole number from 0")
    check_event(event)


def _link(previous: str, body: str) -> str:
    return hashlib.sha256(previous.encode() + b"\n" + body.encode()).hexdigest()

"""A ledger that is behind what the site has sent: its disk was restored from a backup.

The coordinator tells with every question which answers it holds. One that the ledger never settled was charged in rows
that are lost; what it asks next would be charged as if they had never been. So a file beside the ledger stops every
charge, until a person has put the lost charges back. Those are closed at once: what they paid for has left, and is
never made again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato_client.ledger.chain import Reservation, Row, next_row, reservation, settled_results
from sfumato_client.ledger.copies import require_heard, require_not_moved
from sfumato_common.accounting.events import Cohort, Event, event_to_json
from sfumato_common.errors import LedgerError
from sfumato_common.files import write_json

BEHIND = (
    "the coordinator holds answers of this site that its privacy ledger does not know: the disk was restored from a "
    "backup. Nothing is charged or sent until a person has run 'sfumato-site ledger recover'"
)
Answer = tuple[str, int]


@dataclass(frozen=True)
class Owed:
    """A charge that an answer was made under."""

    purpose: str
    round: int
    cohort: Cohort
    event: Event


def behind_path(ledger: Path) -> Path:
    """The file that stops the ledger at that path."""
    return ledger.with_name(ledger.name + ".behind")


def read_behind(ledger: Path) -> dict[str, str]:
    """Answers by plan hash that a stopped ledger does not know; empty when it is not stopped."""
    path = behind_path(ledger)
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text()).items()} if path.exists() else {}
    except (OSError, ValueError, AttributeError):
        raise LedgerError(f"'{path.name}' beside the privacy ledger cannot be read; {BEHIND}") from None


def stop_ledger(ledger: Path, plan_hash: str, answers: str) -> None:
    """Stop the ledger, durably; `answers` are all that the coordinator of that plan holds."""
    write_json(behind_path(ledger), {**read_behind(ledger), plan_hash: answers})


def require_open(ledger: Path) -> None:
    """Raise LedgerError when the ledger is stopped, or lives elsewhere."""
    require_not_moved(ledger)
    if behind_path(ledger).exists():
        raise LedgerError(BEHIND)


def require_current(ledger: Path) -> None:
    """Raise LedgerError as `require_open`, and so while a copied or restored ledger is not settled."""
    require_open(ledger)
    require_heard(ledger)


def unknown_answers(rows: Sequence[Row], plan_hash: str, answers: Collection[Answer]) -> set[Answer]:
    """Those of `answers` that were neither settled nor approved under that plan, nor put back by a person."""
    settled, known = settled_results(rows), set[Answer]()
    for row in rows:
        value = row.value
        if value.get("plan_hash") != plan_hash:
            continue
        if value["kind"] == "reserve" and row.number in settled:
            known.add((value["purpose"], value["round"]))
        elif value["kind"] == "approve":
            known.add((value["part"], 1))
        elif value["kind"] == "recover":
            known |= {(purpose, number) for purpose, number in value["answers"]}
    return set(answers) - known


def recovery_rows(
    rows: Sequence[Row], study: str, plan_hash: str, owed: Sequence[Owed], answers: Collection[Answer], at: str
) -> list[Row]:
    """The rows that put `answers` back: each charge of `owed` that is not there, all of them closed, and who is known.

    Budgets are not asked: this was spent. A charge that is closed without a sha256 can neither be taken up again nor
    stand for anything that is still to leave.
    """
    made = list(rows)

    def add(kind: str, fields: dict[str, Any]) -> Row:
        made.append(next_row(made, kind, {**fields, "at": at}))
        return made[-1]

    mine = [entry for entry in map(reservation, _reserves(rows)) if entry.plan_hash == plan_hash]
    numbers = {_name(entry): entry.number for entry in mine}
    settled = settled_results(rows)
    for item in owed:
        number = numbers.get((item.purpose, item.round, item.cohort))
        if number is None:
            fields = {"purpose": item.purpose, "round": item.round, "cohort": item.cohort}
            stated = {"study": study, "plan_hash": plan_hash, **fields, "event": event_to_json(item.event)}
            number = add("reserve", {**stated, "recovered": True}).number
        if number not in settled:
            add("settle", {"closes": number})
    add("recover", {"plan_hash": plan_hash, "answers": sorted([purpose, number] for purpose, number in answers)})
    return made[len(rows) :]


def _reserves(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.value["kind"] == "reserve"]


def _name(entry: Reservation) -> tuple[str, int, Cohort]:
    return entry.purpose, entry.round, entry.cohort

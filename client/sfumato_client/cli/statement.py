"""What `sfumato-site ledger show` prints: the account's lines and releases, single charges, and all of it as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from sfumato_client.ledger.chain import Reservation
from sfumato_client.ledger.page import COHORTS, alone_text, dates, remarks, times
from sfumato_client.ledger.statement import Statement
from sfumato_common.accounting.accountant import epsilon_text, json_epsilon
from sfumato_common.accounting.events import event_to_json


def lines_table(account: Statement, delta: float) -> Table:
    """A row for everything that a study took at one time."""
    table = Table(
        title="Privacy ledger",
        caption=f"epsilon at delta {delta:g}, unit patient, adjacency add/remove; in all: up to that line",
    )
    for heading in ("no.", "date", "study", "plan", "what for", "patients", "epsilon alone", "in all", "remarks"):
        table.add_column(heading, justify="right" if heading in ("no.", "epsilon alone", "in all") else "left")
    for line in account.lines:
        what, paid = line.words + times(line), (alone_text(line), epsilon_text(line.after))
        named = (str(line.number), dates(line), line.study, line.plan_hash[:12], what, COHORTS[line.cohort])
        table.add_row(*named, *paid, remarks(line))
    return table


def releases_table(account: Statement) -> Table:
    """What left, and who let it go."""
    table = Table(title="What left, and who approved")
    for heading in ("date", "study", "part", "outcome", "by"):
        table.add_column(heading)
    for one in account.releases:
        outcome = f"approved {one.packages[0][:12]}" if one.left else "kept here"
        more = f" and {len(one.packages) - 1} more" if len(one.packages) > 1 else ""
        table.add_row(one.on or "not written", one.study, one.part, outcome + more, Text("; ".join(one.by)))
    return table


def entries_table(charges: Sequence[Reservation], settled: Mapping[int, str | None]) -> Table:
    """Every charge by itself, numbered from 1, with its mechanism; its place in the chain stands beside."""
    table = Table(title="Privacy ledger, every charge")
    for heading in ("charge", "entry", "study", "purpose", "round", "cohort", "mechanism", "state"):
        table.add_column(heading)
    for number, charge in enumerate(charges, start=1):
        event = ", ".join(f"{key} {value}" for key, value in event_to_json(charge.event).items())
        sealed = (settled.get(charge.number) or "")[:12]
        state = f"settled {sealed}".rstrip() if charge.number in settled else "NOT SETTLED"
        of = (str(number), str(charge.number), charge.study, charge.purpose, str(charge.round), charge.cohort)
        table.add_row(*of, event, state)
    return table


def entry_json(charge: Reservation, settled: Mapping[int, str | None]) -> dict[str, Any]:
    """A charge for scripts."""
    return {**asdict(charge), "event": event_to_json(charge.event), "settled": charge.number in settled}


def account_json(account: Statement) -> dict[str, Any]:
    """The account for scripts; a null epsilon is infinite."""
    lines = [
        {**asdict(line), "alone": json_epsilon(line.alone), "after": json_epsilon(line.after)} for line in account.lines
    ]
    return {
        "lines": lines,
        "releases": [asdict(one) for one in account.releases],
        "marks": [asdict(one) for one in account.marks],
    }

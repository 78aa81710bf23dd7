"""What people write into the ledger: who is a steward, what stewards decide, and that it was restored.

See `stewards.py`, `decisions.py` and `copies.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.chain import Row, next_row
from sfumato_client.ledger.copies import require_not_moved
from sfumato_client.ledger.decisions import Decided, Decision, decision_row, decisions
from sfumato_client.ledger.stewards import Stewardship, stewards_of, stewardship_row
from sfumato_client.ledger.storage import insert, now, transaction


def change_steward(ledger: Ledger, change: Stewardship, site_key: bytes) -> None:
    """Enter who became a steward, or is one no longer. Raises ConfigError or PolicyRefusal where that cannot be."""
    _append(ledger, lambda rows: stewardship_row(rows, change, site_key))


def decide(ledger: Ledger, decision: Decision, site_key: bytes, persons: int) -> None:
    """Enter a steward's decision; `persons` must say yes in all. Raises PolicyRefusal where it cannot be taken."""
    _append(ledger, lambda rows: decision_row(rows, decision, site_key, persons))


def stewards(ledger: Ledger, site_key: bytes) -> dict[str, Stewardship]:
    """Who is a steward now, by name. Raises LedgerError where a row was not signed as it must be."""
    return stewards_of(ledger._rows(), site_key)


def decided(ledger: Ledger, plan_hash: str, site_key: bytes) -> list[Decided]:
    """What stewards decided of a plan's release, their signatures verified. Raises LedgerError."""
    return decisions(ledger._rows(), plan_hash, site_key)


def note_restored(ledger: Ledger, words: str) -> None:
    """Enter that this ledger was copied or restored, and how that was settled."""
    _append(ledger, lambda rows: next_row(rows, "restore", {"words": words, "at": now()}))


def _append(ledger: Ledger, row: Callable[[Sequence[Row]], Row]) -> None:
    with transaction(ledger._connection):
        require_not_moved(ledger._path)  # what people say there would be lost: a page may have stayed open
        insert(ledger._connection, row(ledger._rows()))
    ledger._advance_head()

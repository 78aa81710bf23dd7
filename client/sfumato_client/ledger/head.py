"""The ledger's head: number and hash of its last entry, in a file beside it, so that a cut-off end does not go unseen.

The head may lag one entry behind after a crash; it is never ahead of an honest ledger.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sfumato_client.ledger.chain import Row
from sfumato_common.errors import LedgerError
from sfumato_common.files import canonical_json, write_atomic


@dataclass(frozen=True)
class Head:
    """Number and hash of a last entry."""

    number: int
    hash: str


def head_path(ledger: Path) -> Path:
    """The head file of the ledger at that path."""
    return ledger.with_name(ledger.name + ".head")


def has_begun(ledger: Path) -> bool:
    """Whether the ledger at a path holds anything, or held it: opening one that has not would begin it."""
    return ledger.exists() or head_path(ledger).exists()


def head_of(rows: Sequence[Row]) -> Head:
    """The head that `rows` should have."""
    return Head(rows[-1].number, rows[-1].hash)


def read_head(ledger: Path) -> Head | None:
    """The stored head, None when there is none. Raises LedgerError when it cannot be read."""
    try:
        value = json.loads(head_path(ledger).read_bytes())
        return Head(int(value["number"]), str(value["hash"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise LedgerError("the privacy ledger's head cannot be read; restore it from a backup") from None


def write_head(ledger: Path, rows: Sequence[Row]) -> None:
    """Store the head of `rows`, durably."""
    head = head_of(rows)
    write_atomic(head_path(ledger), canonical_json({"number": head.number, "hash": head.hash}), mode=0o600)


def check_head(rows: Sequence[Row], head: Head | None) -> None:
    """Raise LedgerError when entries that the head knows are missing at the end of `rows`."""
    if head is None:
        if len(rows) > 1:
            raise LedgerError("the privacy ledger has entries but no head; restore both from one backup")
        return
    if head.number >= len(rows) or rows[head.number].hash != head.hash:
        raise LedgerError("the privacy ledger's end is missing; stop, and restore ledger and head from one backup")

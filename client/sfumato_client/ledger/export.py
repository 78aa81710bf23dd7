"""The ledger as one file for the data-protection officer: canonical JSON, every row as it was hashed, and the head.

It holds what the site keeps to itself (its budget, all its studies), so it stays in the site unless the site decides
otherwise; the file says so itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from sfumato_client.ledger.approvals import Approval, approvals
from sfumato_client.ledger.chain import Reservation, Row, check_chain, reservation, settled_results
from sfumato_client.ledger.head import Head, check_head, head_of
from sfumato_common.accounting.events import Unprotected
from sfumato_common.crypto.pseudonyms import Binding, read_binding
from sfumato_common.crypto.signatures import is_same_key
from sfumato_common.errors import LedgerError, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.strict import Strict
from sfumato_common.study.certificate import StatedCosts
from sfumato_common.study.plan import Name
from sfumato_common.study.policy import Budget

Hash = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
NOTICE = (
    "For the data-protection officer of this site. It lists what every study took from the site's patients, and stays "
    "in the site unless the site decides otherwise."
)


class ExportedRow(Strict):
    """One row: its body is the very text that `hash` was computed over."""

    number: Annotated[int, Field(ge=0)]
    body: str
    hash: Hash


class ExportedHead(Strict):
    """Number and hash of the last row."""

    number: Annotated[int, Field(ge=0)]
    hash: Hash


class LedgerExport(Strict):
    """The file. `spent` is what all rows cost together at the budget's delta, rounded up; null stands for infinite.

    `without_privacy` names the studies under which weights left without differential privacy. `bindings` are the
    statements of the site's pseudonyms, where it has some.
    """

    format: Literal["sfumato-ledger-export/1"]
    notice: str
    site: Name
    budget: Budget
    spent: StatedCosts
    without_privacy: list[Name]
    rows: list[ExportedRow]
    head: ExportedHead
    bindings: list[str] = Field(default_factory=list, exclude_if=lambda held: not held)


@dataclass(frozen=True)
class ReadExport:
    """An export whose chain holds: whose it is, and every charge in it, in order.

    `settled` is the sha256 of what was sealed under each charge that was carried out, by its number; None in rows of
    older versions. `approvals` are the site's leaves for packages to go, their signatures not yet checked.
    `bindings` are statements of its pseudonyms, whose signatures hold.
    """

    site: str
    charges: tuple[Reservation, ...]
    settled: Mapping[int, str | None]
    approvals: tuple[Approval, ...]
    head: Head
    rows: tuple[Row, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def keys(self, name: str, given: bytes | None) -> tuple[bytes | None, bytes | None]:
        """The keys (PEM) that what left under `name` and what stays here are signed by, where one of them is `given`.

        Raises VerificationError where `name` is none of the site's, or the key neither.
        """
        held = [binding for binding in self.bindings if binding.name == name]
        if name != self.site and not held:
            raise VerificationError("it was made by another site than the exported ledger")
        if given is None or not held:
            return given, given
        keys = held[0].name_key.encode(), held[0].site_key.encode()
        if not any(is_same_key(given, key) for key in keys):
            raise VerificationError(f"the key is neither that of '{name}' nor of the site that goes by it")
        return keys

    @property
    def row_hashes(self) -> dict[int, str]:
        """The chain's hash at each row."""
        return {row.number: row.hash for row in self.rows}


def write_export(
    rows: Sequence[Row], site: str, budget: Budget, spent: StatedCosts, bindings: Collection[str] = ()
) -> bytes:
    """The file's bytes, the same for the same ledger."""
    head = head_of(rows)
    return canonical_json(
        LedgerExport(
            format="sfumato-ledger-export/1",
            notice=NOTICE,
            site=site,
            budget=budget,
            spent=spent,
            without_privacy=sorted(
                {charge.study for charge in _charges(rows) if isinstance(charge.event, Unprotected)}
            ),
            rows=[ExportedRow(number=row.number, body=row.body, hash=row.hash) for row in rows],
            head=ExportedHead(number=head.number, hash=head.hash),
            bindings=list(bindings),
        ).model_dump(mode="json")
    )


def read_export(data: bytes) -> ReadExport:
    """Verify an export. Raises LedgerError when it is none, or when any row was changed, removed, added or moved."""
    try:
        export = LedgerExport.model_validate(json.loads(data))
        rows = [Row(row.number, row.body, row.hash) for row in export.rows]
        check_chain(rows, export.site)
        charges, closed, left = _charges(rows), settled_results(rows), tuple(approvals(rows))
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError):
        raise LedgerError("this is no ledger export, or a damaged one; export the ledger again") from None
    check_head(rows, Head(export.head.number, export.head.hash))
    if export.head.number != len(rows) - 1:
        raise LedgerError("the export goes on behind its head; export the ledger again")
    held = tuple(map(read_binding, export.bindings))
    if any(binding.site != export.site for binding in held):
        raise LedgerError("the export has another site's pseudonym; export the ledger again")
    head = Head(export.head.number, export.head.hash)
    return ReadExport(export.site, charges, closed, left, head, tuple(rows), held)


def _charges(rows: Sequence[Row]) -> tuple[Reservation, ...]:
    return tuple(reservation(row) for row in rows if row.value["kind"] == "reserve")

"""Approvals as rows of the ledger: leave for the very bytes of one package to go, signed by the site.

Whatever is sent has one. A row names who did, so that a steward's can stand beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from sfumato_client.ledger.chain import Row, next_row
from sfumato_common.crypto.signatures import verify
from sfumato_common.errors import LedgerError, ReleaseRefused, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.study.words import PARTS, Part

# 'no-gate': a formal part under a policy and a plan that ask for no gate on it; 'steward': people, after the gate
Approver = Literal["gate", "no-gate", "steward"]


@dataclass(frozen=True)
class Approval:
    """Who let which shard of a part of a plan's release go: the package's sha256, and those of the part's sealed sets.

    `signature` is the site's (Ed25519, domain "approval") over `statement`. Where a part is one shard, neither row nor
    statement counts them: so they were before there were shards. `decided` are the hashes of the stewards' decisions
    that it rests on.
    """

    plan_hash: str
    part: Part
    by: Approver
    package_sha256: str
    sets: tuple[str, ...]
    signature: bytes
    shard: int = 1
    shards: int = 1
    decided: tuple[str, ...] = ()

    @property
    def statement(self) -> bytes:
        """What is signed."""
        return canonical_json(self._stated())

    def check(self, package: bytes, public_key: bytes) -> None:
        """Raise ReleaseRefused unless this is the site's own leave for exactly these bytes."""
        if hashlib.sha256(package).hexdigest() != self.package_sha256:
            raise ReleaseRefused("the package is not the one that was approved; nothing was sent")
        try:
            self.check_signature(public_key)
        except VerificationError:
            raise ReleaseRefused("an approval in the ledger was not signed by this site; nothing was sent") from None

    def check_signature(self, public_key: bytes) -> None:
        """Raise VerificationError unless the holder of `public_key` (PEM) signed this approval."""
        verify(public_key, "approval", self.statement, self.signature)

    def fields(self) -> dict[str, Any]:
        """The row's fields."""
        return {**self._stated(), "signature": self.signature.hex()}

    def _stated(self) -> dict[str, Any]:
        counted = {} if self.shards == 1 else {"shard": self.shard, "shards": self.shards}
        decided = {"decided": list(self.decided)} if self.decided else {}
        return {
            "plan_hash": self.plan_hash,
            "part": self.part,
            "by": self.by,
            "package_sha256": self.package_sha256,
            "sets": list(self.sets),
            **counted,
            **decided,
        }


def approval(
    plan_hash: str,
    part: Part,
    by: Approver,
    package: bytes,
    sets: Sequence[str],
    sign: Callable[[bytes], bytes],
    *,
    shard: int = 1,
    shards: int = 1,
    decided: Sequence[str] = (),
) -> Approval:
    """A new approval of `package`, shard `shard` of `shards`, signed by `sign` (`SiteIdentity.sign_approval`)."""
    digest = hashlib.sha256(package).hexdigest()
    found = Approval(plan_hash, part, by, digest, tuple(sets), b"", shard, shards, tuple(decided))
    return replace(found, signature=sign(found.statement))


def approvals(rows: Sequence[Row]) -> list[Approval]:
    """Every approval in order. Raises LedgerError for a row that is none."""
    return [_approval(row) for row in rows if row.value["kind"] == "approve"]


def approvals_by_part(rows: Sequence[Row], plan_hash: str) -> dict[Part, list[Approval]]:
    """The approvals of a plan's release by part, shard after shard."""
    found: dict[Part, list[Approval]] = {}
    for leave in approvals(rows):
        if leave.plan_hash == plan_hash:
            found.setdefault(leave.part, []).append(leave)
    return found


def approval_rows(rows: Sequence[Row], leaves: Sequence[Approval], at: str) -> list[Row]:
    """The rows after `rows` that approve all shards of a part, at a time that nobody signs.

    Raises LedgerError when it was approved before.
    """
    part = {(leave.plan_hash, leave.part) for leave in leaves}
    assert len(part) == 1, "a part is approved by itself"
    assert [(leave.shard, leave.shards) for leave in leaves] == [(at + 1, len(leaves)) for at in range(len(leaves))]
    if any((other.plan_hash, other.part) in part for other in approvals(rows)):
        raise LedgerError(f"the {leaves[0].part} part of this plan's release was approved before")
    known = list(rows)
    for leave in leaves:
        known.append(next_row(known, "approve", {**leave.fields(), "at": at}))
    return known[len(rows) :]


def _approval(row: Row) -> Approval:
    value = row.value
    try:
        known = value["part"] in PARTS and value["by"] in get_args(Approver)
        sets, decided = tuple(map(str, value["sets"])), tuple(map(str, value.get("decided", ())))
        counted = {"shard": value["shard"], "shards": value["shards"]} if "shards" in value else {}
        found = Approval(
            str(value["plan_hash"]),
            value["part"],
            value["by"],
            str(value["package_sha256"]),
            sets,
            bytes.fromhex(value["signature"]),
            **counted,
            decided=decided,
        )
        known = known and (found.by == "steward") == bool(found.decided)
        known = known and type(found.shard) is type(found.shards) is int and 1 <= found.shard <= found.shards
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise LedgerError(f"entry {row.number} of the privacy ledger approves nothing; use the version that wrote it")
    return found

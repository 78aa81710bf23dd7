"""A steward's yes or no as a row of the ledger, for exactly the candidates of one part of one plan's release.

It is signed by the steward's own key, over site, plan, part and the digests of the candidate sets, so that it serves no
other plan and no other candidates, and once more by the site as it was taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from sfumato_client.ledger.approvals import Approval
from sfumato_client.ledger.chain import Row, next_row
from sfumato_client.ledger.stewards import Sign, Stewardship, stewards_of
from sfumato_common.crypto.signatures import verify
from sfumato_common.errors import ConfigError, LedgerError, PolicyRefusal, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.study.words import PARTS, Part

Verdict = Literal["approve", "refuse"]
# why a part is refused. Of a formal part no ground rests on a patient's image: the page shows none.
GROUNDS: dict[str, str] = {
    "quality": "the images are of no use, or wrong for their labels",
    "study": "the study ended, or this site takes no further part in it",
    "law": "a contract, an ethics vote or a law forbids it",
    "resemblance": "an image resembles a patient, or shows what must not leave",
}
GROUNDS_OF: dict[Part, tuple[str, ...]] = {"formal": ("quality", "study", "law"), "declared": tuple(GROUNDS)}
LONGEST_REASON = 500
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Decision:
    """What `steward` said of a part: `sets` are the digests of its candidate sets, in order.

    `ground` is a key of GROUNDS where it was refused, '' where it was approved; `reason` is the person's own words.
    """

    site: str
    plan_hash: str
    part: Part
    sets: tuple[str, ...]
    verdict: Verdict
    ground: str
    reason: str
    steward: str
    at: str
    by_signature: bytes = b""
    signature: bytes = b""

    def __post_init__(self) -> None:
        grounds = GROUNDS_OF[self.part] if self.verdict == "refuse" else ("",)
        if self.ground not in grounds:
            raise ConfigError(f"the {self.part} part is refused on a ground: {', '.join(GROUNDS_OF[self.part])}")
        if not self.reason.strip() or len(self.reason) > LONGEST_REASON or not self.reason.isprintable():
            raise ConfigError(f"say the reason in one line of at most {LONGEST_REASON} letters; name no patient in it")

    @property
    def statement(self) -> bytes:
        """What the steward signs, domain "decision"."""
        return canonical_json(self._stated())

    @property
    def taken(self) -> bytes:
        """What the site signs, domain "stewardship": the statement with the steward's signature."""
        return canonical_json({"decision": self._stated(), "by_signature": self.by_signature.hex()})

    def fields(self) -> dict[str, Any]:
        """The row's fields."""
        return {**self._stated(), "by_signature": self.by_signature.hex(), "signature": self.signature.hex()}

    def _stated(self) -> dict[str, Any]:
        names = ("site", "plan_hash", "part", "verdict", "ground", "reason", "steward", "at")
        return {**{name: getattr(self, name) for name in names}, "sets": list(self.sets)}


def signed(decision: Decision, by_sign: Sign, sign: Sign) -> Decision:
    """`decision` with the signatures of its steward and of the site (`SiteIdentity.sign_stewardship`)."""
    told = replace(decision, by_signature=by_sign(decision.statement))
    return replace(told, signature=sign(told.taken))


@dataclass(frozen=True)
class Decided:
    """A decision whose signatures hold, the hash of its row, and the steward's stewardship at that row."""

    decision: Decision
    row_hash: str
    by: Stewardship


def decisions(rows: Sequence[Row], plan_hash: str, site_key: bytes) -> list[Decided]:
    """What stewards decided of a plan's release, in order; `site_key` is the site's own (PEM).

    Raises LedgerError for a decision that no steward of that moment, or not this site, signed.
    """
    found = []
    for row in rows:
        if row.value["kind"] == "decide" and row.value.get("plan_hash") == plan_hash:
            decision = _decision(row)
            found.append(Decided(decision, row.hash, _check(rows[: row.number], decision, site_key, row.number)))
    return found


def require_decided(rows: Sequence[Row], leaves: Sequence[Approval], site_key: bytes) -> None:
    """Raise LedgerError where an approval rests on decisions that are not there, or are about something else."""
    for leave in leaves:
        if leave.decided:
            said = {each.row_hash: each.decision for each in decisions(rows, leave.plan_hash, site_key)}
            mine = [said.get(found) for found in leave.decided]
            about = {each and (each.part, each.sets, each.verdict) for each in mine}
            if about != {(leave.part, leave.sets, "approve")}:
                raise LedgerError("an approval in the ledger rests on no steward's yes to these candidates")


def decision_row(rows: Sequence[Row], decision: Decision, site_key: bytes, persons: int) -> Row:
    """The row that follows `rows`.

    Raises PolicyRefusal from who is no steward, who decided before, or of a part that is decided, or that another one
    saw with other candidates.
    """
    known = stewards_of(rows, site_key)
    if decision.steward not in known:
        raise PolicyRefusal(f"'{decision.steward}' is no steward here; 'sfumato-site steward add' makes one")
    before = [each.decision for each in decisions(rows, decision.plan_hash, site_key)]
    mine = [each for each in before if each.part == decision.part]
    if any(each.verdict == "refuse" for each in mine) or len(mine) >= persons:
        raise PolicyRefusal("this part of the release is decided; a decision is not taken back")
    if any(each.steward == decision.steward for each in mine):
        raise PolicyRefusal(f"'{decision.steward}' has decided; the second yes is another person's")
    if any(each.sets != decision.sets for each in mine):
        raise PolicyRefusal("the other steward decided on other candidates than these: inspect the home's 'releases'")
    _check(rows, decision, site_key, len(rows))
    return next_row(rows, "decide", decision.fields())


def _check(rows: Sequence[Row], decision: Decision, site_key: bytes, number: int) -> Stewardship:
    """Who decided. Raises LedgerError."""
    try:
        by = stewards_of(rows, site_key)[decision.steward]
        verify(by.public_key, "decision", decision.statement, decision.by_signature)
        verify(site_key, "stewardship", decision.taken, decision.signature)
    except (VerificationError, KeyError):
        raise LedgerError(
            f"the decision of entry {number} of the privacy ledger was not signed by a steward of this site; do not "
            "rely on it, and inspect the ledger"
        ) from None
    return by


def _decision(row: Row) -> Decision:
    value = row.value
    try:
        known = value["part"] in PARTS and value["verdict"] in get_args(Verdict)
        found = Decision(
            site=str(value["site"]),
            plan_hash=str(value["plan_hash"]),
            part=value["part"],
            sets=tuple(map(str, value["sets"])),
            verdict=value["verdict"],
            ground=str(value["ground"]),
            reason=str(value["reason"]),
            steward=str(value["steward"]),
            at=str(value["at"]),
            by_signature=bytes.fromhex(value["by_signature"]),
            signature=bytes.fromhex(value["signature"]),
        )
        known = known and all(map(_HASH.fullmatch, found.sets))
    except (KeyError, TypeError, ValueError, ConfigError):
        known = False
    if not known:
        raise LedgerError(f"entry {row.number} of the privacy ledger decides nothing; use the version that wrote it")
    return found

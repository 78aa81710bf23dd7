"""Stewards' consent to candidates that the gate let pass: what `release.seal` asks for where policy asks people.

Like an `Approved` it lives and dies with its process, and only this file makes one: from decisions in the ledger whose
signatures hold, for exactly these candidates of this plan.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from sfumato_client.audit.verdict import Approved
from sfumato_client.ledger.decisions import Decided
from sfumato_common.errors import EgressRefused, ReleaseRefused
from sfumato_common.files import canonical_json
from sfumato_common.mechanisms.sealed import ProcessKey, digest_of
from sfumato_common.study.words import Part

_KEY = ProcessKey()


@dataclass(frozen=True, eq=False)
class Consent:
    """That stewards, by name, said yes to the candidate sets with these digests, in the ledger's rows `rows`."""

    plan_hash: str
    part: Part
    sets: tuple[str, ...]
    stewards: tuple[str, ...]
    rows: tuple[str, ...]
    _seal: bytes = field(repr=False)

    def check(self, approved: Approved, plan_hash: str, part: Part, persons: int) -> None:
        """Raise ReleaseRefused unless `persons` stewards said yes to exactly these candidates, under this plan."""
        sealed = _seal_of(self.plan_hash, self.part, self.sets, self.stewards, self.rows)
        mine = (self.plan_hash, self.part, self.sets) == (plan_hash, part, digests_of(approved))
        if not hmac.compare_digest(self._seal, sealed) or not mine or len(set(self.stewards)) < persons:
            raise ReleaseRefused("no steward's consent is for just these candidates; only audit.consent gives one")


def digests_of(approved: Approved) -> tuple[str, ...]:
    """What a decision names of candidates: the digest of every set."""
    return tuple(digest_of(item) for item in approved.candidates)


def consent_of(
    decided: Sequence[Decided], plan_hash: str, part: Part, sets: tuple[str, ...], persons: int
) -> Consent | None:
    """What stewards said of a part whose candidate sets have these digests; None while `persons` have not said yes.

    Two are two by name and by key. Raises ReleaseRefused where one said no, and EgressRefused where they decided on
    other candidates than these: what they saw was changed since.
    """
    mine = [each for each in decided if (each.decision.plan_hash, each.decision.part) == (plan_hash, part)]
    if any(each.decision.verdict == "refuse" for each in mine):
        raise ReleaseRefused("a steward refused the candidates: nothing of this part is released; see 'queue'")
    if any(each.decision.sets != sets for each in mine):
        raise EgressRefused("the candidates are not those that the stewards decided on: restore 'releases'")
    by_key = {each.by.key: each for each in mine}
    if len({each.decision.steward for each in by_key.values()}) < persons:
        return None
    names, rows = tuple(each.decision.steward for each in mine), tuple(each.row_hash for each in mine)
    return Consent(plan_hash, part, sets, names, rows, _seal_of(plan_hash, part, sets, names, rows))


def _seal_of(plan_hash: str, part: Part, sets: Sequence[str], stewards: Sequence[str], rows: Sequence[str]) -> bytes:
    return _KEY.tag(canonical_json([plan_hash, part, list(sets), list(stewards), list(rows)]))

"""All that a dossier is made from: signed files and rows of a ledger, each with its hash and who stands behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sfumato_common.evidence.decided import StewardDecisions
from sfumato_common.study.certificate import Certificate, StatedCosts
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Budget, Policy


@dataclass(frozen=True)
class Source:
    """One piece of evidence: where it is, the sha256 of its bytes, and who stands behind it, in words."""

    name: str
    sha256: str
    behind: str

    @classmethod
    def of(cls, name: str, data: bytes, behind: str) -> Source:
        """The source of a file's bytes."""
        return cls(name, hashlib.sha256(data).hexdigest(), behind)


@dataclass(frozen=True)
class Stated:
    """A site's certificate, and the signed head that it stands in."""

    certificate: Certificate
    source: Source


@dataclass(frozen=True)
class SetFacts:
    """A published set, verified: images by (method, guarantee level), sites left out, and the figure of use, if any.

    `images` counts synthetic images. `utility` is an AUC, the ends of its interval, and the file that it stands in.
    `trusted`: the coordinator's key was compared with one from elsewhere.
    """

    source: Source
    images: Mapping[tuple[str, str], int]
    left_out: Mapping[str, str]
    utility: tuple[float, float | None, float | None, Source] | None
    trusted: bool


@dataclass(frozen=True)
class LedgerFacts:
    """A site's ledger, its chain verified: what patients paid over all studies, and who let this plan's release go.

    `open` counts charges that were never noted as carried out. `approvers` has who approved each shard of this plan,
    and `decisions` what stewards said of it, their signatures verified.
    """

    source: Source
    budget: Budget
    spent: StatedCosts
    charges: int
    open: int
    approvers: Sequence[str]
    decisions: StewardDecisions | None = None


@dataclass(frozen=True)
class GateFacts:
    """A report that the gate left for the steward: a local file that nobody signed.

    `figures` has a line for each rule, of real patients' images: it stays at the site.
    """

    source: Source
    approved: bool
    figures: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """What one side can show of one study; what is None it does not have.

    `plan_hash` is what all parties share, at the coordinator, and at a site its own.
    """

    side: str
    plan: Plan
    plan_hash: str
    plan_source: Source
    stated: Mapping[str, Stated]
    published: SetFacts | None = None
    policy: tuple[Policy, Source] | None = None
    ledger: LedgerFacts | None = None
    gate: Sequence[GateFacts] = ()

    @property
    def formal(self) -> bool:
        """Whether every certificate is there and its epsilons mean anything."""
        return bool(self.stated) and self.plan.private and all(one.certificate.formal for one in self.stated.values())

    @property
    def signed(self) -> tuple[Source, ...]:
        """The signed heads of all certificates."""
        return tuple(one.source for one in self.stated.values())

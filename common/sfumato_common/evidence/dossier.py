"""The dossier: every row of every framework with a status that its evidence carries, as strict records and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.evidence.checks import CHECKS
from sfumato_common.evidence.decided import StewardDecisions
from sfumato_common.evidence.facts import Facts, Source
from sfumato_common.evidence.finding import ORDER, Finding, Status
from sfumato_common.evidence.frameworks import FRAMEWORKS, Framework, Requirement
from sfumato_common.evidence.frameworks.base import Read
from sfumato_common.package.manifest import Hash
from sfumato_common.strict import Strict
from sfumato_common.study.plan import Name

NOTICE = (
    "Filled by a program from the files it names. It is no legal opinion, no audit and no statement that anything is "
    "anonymous. Nobody signed it: what it says is worth what its evidence is."
)


STAYS = (
    " It holds figures of real patients' images, and what the site keeps to itself: it stays at the site "
    "unless the site "
    "decides otherwise."
)


class Evidence(Strict):
    """A piece of evidence, by its place in the dossier's list."""

    name: str
    sha256: Hash
    behind: str


class StatedCheck(Strict):
    """What one check found. `evidence` are places in the dossier's list."""

    status: Status
    says: str
    missing: str
    evidence: list[int]


class StatedRow(Strict):
    """A requirement, its status, and the names of the checks that it rests on, the worst first."""

    clause: str
    asks: str
    read: Read
    status: Status
    checks: list[str]


class StatedFramework(Strict):
    """A framework with its rows, the least shown first."""

    key: str
    title: str
    note: str
    rows: list[StatedRow]


class Dossier(Strict):
    """The whole. `counts` has the number of rows of each status; `decisions` is in a site's alone."""

    format: Literal["sfumato-dossier/1"]
    notice: str
    side: Literal["coordinator", "site"]
    study: Name
    plan_hash: Hash
    made: Annotated[str, Field(pattern=r"\A\d{4}-\d{2}-\d{2}\z")]
    counts: dict[Status, int]
    evidence: list[Evidence]
    checks: dict[str, StatedCheck]
    frameworks: list[StatedFramework]
    decisions: Annotated[StewardDecisions | None, Field(exclude_if=lambda value: value is None)] = None

    def summary(self, folder: Path) -> str:
        """One line for the screen."""
        counted = ", ".join(f"{self.counts[status]} {status}" for status in ORDER)
        return f"'{folder.name}' holds dossier.html and dossier.json of study '{self.study}': {counted}"

    def encode(self) -> bytes:
        """The bytes of the JSON file."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()


def make_dossier(facts: Facts) -> Dossier:
    """Every framework held against `facts`; every check runs once."""
    found = {name: check(facts) for name, check in CHECKS.items()}
    sources = list(dict.fromkeys(source for finding in found.values() for source in finding.evidence))
    frameworks = [_framework(framework, found) for framework in FRAMEWORKS]
    rows = [row for framework in frameworks for row in framework.rows]
    return Dossier(
        format="sfumato-dossier/1",
        notice=NOTICE + (STAYS if facts.side == "site" else ""),
        side="site" if facts.side == "site" else "coordinator",
        study=facts.plan.study,
        plan_hash=facts.plan_hash,
        made=datetime.now(UTC).date().isoformat(),
        counts={status: sum(row.status == status for row in rows) for status in ORDER},
        evidence=[Evidence(name=one.name, sha256=one.sha256, behind=one.behind) for one in sources],
        checks={name: _stated(finding, sources) for name, finding in found.items()},
        frameworks=frameworks,
        decisions=None if facts.ledger is None else facts.ledger.decisions,
    )


def row_status(findings: list[Finding]) -> Status:
    """Shown where all of it is, not shown where nothing is, and partly between."""
    statuses = {finding.status for finding in findings}
    return statuses.pop() if len(statuses) == 1 else "partly"


def _framework(framework: Framework, found: Mapping[str, Finding]) -> StatedFramework:
    rows = [_row(requirement, found) for requirement in framework.requirements]
    rows.sort(key=lambda row: ORDER.index(row.status))
    return StatedFramework(key=framework.key, title=framework.title, note=framework.note, rows=rows)


def _row(requirement: Requirement, found: Mapping[str, Finding]) -> StatedRow:
    checks = sorted(requirement.checks, key=lambda name: ORDER.index(found[name].status))
    status = row_status([found[name] for name in checks])
    return StatedRow(
        clause=requirement.clause, asks=requirement.asks, read=requirement.read, status=status, checks=checks
    )


def _stated(finding: Finding, sources: list[Source]) -> StatedCheck:
    places = [sources.index(source) for source in finding.evidence]
    return StatedCheck(status=finding.status, says=finding.says, missing=finding.missing, evidence=places)

"""The ledger as one page for a data-protection officer: HTML without script, picture or anything from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.head import head_of
from sfumato_client.ledger.statement import Line, statement
from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.accounting.events import Unprotected
from sfumato_common.count_text import count_text
from sfumato_common.pages import html_templates
from sfumato_common.study.costs import WITHOUT_PRIVACY

COHORTS = {"train": "training", "holdout": "holdout"}


def ledger_page(ledger: Ledger, site_key: bytes | None, test_noise: bool = False) -> str:
    """The page of `ledger`; see `statement` for `site_key`, and for what is raised."""
    account, costs, budget = statement(ledger, site_key), ledger.costs(), ledger.budget
    paid, head = costs.patient.add_remove, head_of(ledger._rows())
    return (
        html_templates("sfumato_client.ledger")
        .get_template("ledger.html.j2")
        .render(
            site=ledger.site,
            warnings=_warnings(ledger, account.lines, test_noise),
            paid={
                "train": epsilon_text(costs.train.add_remove),
                "holdout": epsilon_text(costs.holdout.add_remove),
                "replaced": epsilon_text(costs.patient.replace_one),
            },
            budget=f"{budget.epsilon:g}",
            left=epsilon_text(max(budget.epsilon - paid, 0.0)),
            share=f"{min(paid / budget.epsilon, 1.0):.4f}",
            delta=f"{budget.delta:g}",
            lines=[_shown(line) for line in account.lines],
            releases=account.releases,
            marks=account.marks,
            entries=head.number + 1,
            head=head.hash,
            written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )
    )


def remarks(line: Line) -> str:
    """What else is to be said of a line."""
    said = []
    if line.bits:
        said.append(f"no epsilon covers {count_text(line.bits, 'bit')} of it: declared")
    if line.open:
        said.append(f"{line.open} not settled: a crash or work in progress, charged alike")
    if line.recovered:
        said.append(f"{line.recovered} put back after a restored disk")
    if math.isinf(line.alone):
        said.append("NO PRIVACY")
    return "; ".join(said)


def alone_text(line: Line) -> str:
    """A line's epsilon for people; of what is declared alone there is none."""
    return "none" if line.bits and not line.alone else epsilon_text(line.alone)


def dates(line: Line) -> str:
    """The day of a line, or its first and last."""
    return (line.since or "not written") if line.since == line.until else f"{line.since} to {line.until}"


def times(line: Line) -> str:
    """How many charges a line has, where it has more than one."""
    return f", {line.charges} times" if line.charges > 1 else ""


def _shown(line: Line) -> dict[str, Any]:
    return {
        "number": line.number,
        "dates": dates(line),
        "study": line.study,
        "plan": line.plan_hash[:12],
        "words": line.words,
        "times": times(line),
        "cohort": COHORTS[line.cohort],
        "alone": alone_text(line),
        "after": epsilon_text(line.after),
        "remarks": remarks(line),
    }


def _warnings(ledger: Ledger, lines: Sequence[Line], test_noise: bool) -> list[str]:
    found = []
    if bare := sorted({entry.study for entry in ledger.entries() if isinstance(entry.event, Unprotected)}):
        found.append(f"NO PRIVACY: {WITHOUT_PRIVACY} in {', '.join(bare)}; epsilon is infinite")
    if test_noise:
        found.append("TEST NOISE: this site's policy says so, and there is no guarantee at all")
    if unsettled := sum(line.open for line in lines):
        what = count_text(unsettled, "charge was", "charges were")
        found.append(f"{what} never settled (a crash, or work in progress): charged all the same")
    return found

"""What a steward is to know of a part of a release: what it is, what it promises, what patients pay, what a no does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.audit.verdict import report_path
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.certificate import COHORTS
from sfumato_client.review.drawings import Drawing, attack_drawing, finding_drawing
from sfumato_client.site.desk import Entry
from sfumato_common.accounting.accountant import cohort_costs, epsilon_text
from sfumato_common.accounting.events import Declared
from sfumato_common.count_text import count_text
from sfumato_common.study.costs import REVIEW_WORDS, declared_disclosures

LEVELS = {
    "formal": "proved: an epsilon covers all that an image shows and is said to be",
    "formal, labels public": "proved for the pixels; the label is a patient's own, and no epsilon covers it",
    "syntactic": "every image was made from at least k patients; no epsilon covers it",
    "heuristic": "measured by attacks alone; no epsilon covers it",
}


@dataclass(frozen=True)
class Cost:
    """What a patient pays at most: under add/remove of one patient, and where one is replaced by another."""

    what: str
    add_remove: str
    replace_one: str


def paragraph(entry: Entry, sets: Sequence[CandidateSet]) -> str:
    """What the part is, in one paragraph."""
    plan, site, form = entry.plan, entry.home.policy().site, entry.plan.image
    made = "; ".join(f"{len(item.images)} by {item.method} from the model '{item.model}'" for item in sets)
    colour = "in colour" if form.channels == 3 else f"in grey of {form.bits} bits"
    covered = (
        "They were drawn from models that were trained under differential privacy, or with noise of their own that is "
        "charged: the epsilon below covers all of them."
        if entry.part == "formal"
        else "No epsilon covers them whole: what stands for them is the number of patients behind an image, where "
        "there is one, and the gate, which found nothing that it must refuse."
    )
    return (
        f"Site '{site}' would give study '{plan.study}' the {entry.part} part of its release: "
        f"{sum(len(item.images) for item in sets)} synthetic images of {form.size} x {form.size} pixels {colour} with "
        f"the labels {', '.join(plan.labels)}. They were made so: {made}. {covered}"
    )


def costs(entry: Entry, ledger: Ledger) -> list[Cost]:
    """Epsilon before this study, of it alone, and over all, at the budget's delta; once those under way are whole."""
    delta, digest = ledger.budget.delta, entry.plan.digest
    before = [ledger.events(cohort, except_plan=digest) for cohort in COHORTS]
    own = [ledger.events(cohort, digest) for cohort in COHORTS]
    whole = [[*ledger.committed(cohort, digest), *mine] for cohort, mine in zip(COHORTS, own, strict=True)]
    rows = (
        ("before this study", before),
        ("this study, so far", own),
        ("all studies together, this one so far", [[*a, *b] for a, b in zip(before, own, strict=True)]),
        ("all studies together, with what those under way will still charge", whole),
    )
    found = []
    for what, (train, holdout) in rows:
        paid = cohort_costs(train, holdout, delta).patient
        found.append(Cost(what, epsilon_text(paid.add_remove), epsilon_text(paid.replace_one)))
    return found


def disclosures(entry: Entry, parts: Sequence[str]) -> list[str]:
    """What no epsilon covers, in the ledger's words; `parts` are those that people are asked about."""
    asked: list[Declared] = [REVIEW_WORDS[part] for part in REVIEW_WORDS if part in parts]
    found = [*declared_disclosures(entry.plan), *asked]
    return [f"{event.what} ({count_text(event.bits, 'bit')})" for event in found]


def judged(entry: Entry, digests: Sequence[str]) -> tuple[list[Drawing], list[Drawing], list[str]]:
    """What the gate found, what attacks did, and which could not be tried.

    Nothing of a formal part, whose page rests on no patient's image.
    """
    if entry.part == "formal":
        return [], [], []
    try:
        report: dict[str, Any] = json.loads(report_path(entry.home.steward_folder, digests).read_text())
    except (OSError, ValueError):
        return [], [], []
    rules = [finding_drawing(finding) for finding in report.get("findings", [])]
    untried = [f"{one['attack']} on {one['of']}: {one['reason']}" for one in report.get("attacks_not_tried", [])]
    return rules, [attack_drawing(result) for result in report.get("attacks", [])], untried


def consequences(entry: Entry) -> list[str]:
    """What changes when the part is refused."""
    parts, site = entry.plan.parts_at(entry.home.policy().site), entry.home.policy().site
    other = [part for part in parts if part != entry.part]
    left = (
        f"The {other[0]} part is decided by itself, and goes or stays without this one."
        if other
        else f"Site '{site}' then gives the study no image; with fewer sites than its quorum the study stops."
    )
    return [
        "These images never leave, and this plan does not make them again.",
        left,
        "What patients paid stays paid: nothing is refunded.",
        "The coordinator sees that the part does not come. It is told neither ground nor reason.",
    ]

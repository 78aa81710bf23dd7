"""A site whose disk was restored from a backup: how it finds out, and what a person puts back into its ledger."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sfumato_client.ledger.behind import (
    BEHIND,
    Owed,
    behind_path,
    read_behind,
    require_current,
    require_open,
    stop_ledger,
)
from sfumato_client.ledger.copies import read_restored
from sfumato_client.site.home import SiteHome
from sfumato_client.site.names import name_in
from sfumato_client.site.restored import go_on, hear_of, known_plan, notice_copy
from sfumato_common.accounting.events import Cohort, Event
from sfumato_common.errors import LedgerError, VerificationError
from sfumato_common.protocol.answers import Answer, read_answers
from sfumato_common.study.costs import (
    GATE_VERDICT,
    REVIEW_WORDS,
    formal_gate_events,
    release_events,
    stage_events,
    utility_event,
)
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.words import PARTS

# the declared verdict compares training images with holdout ones: both cohorts' books say so
GATE_BOOKS: dict[Cohort, str] = {"train": "gate", "holdout": "gate-control"}
# a steward may know patients of either
REVIEW_BOOKS: dict[Cohort, str] = {"train": "review", "holdout": "review-control"}


@dataclass(frozen=True)
class Recovery:
    """What one coordinator holds of this site that the ledger does not know, and the charges that it was made under.

    `unheard` where the coordinator told nothing since the home was restored: then it is all that it can hold.
    """

    plan: Plan
    answers: frozenset[Answer]
    owed: tuple[Owed, ...]
    unheard: bool = False


def require_known(home: SiteHome, plan: Plan, told: str) -> None:
    """Raise LedgerError when the ledger lacks an answer that the coordinator holds (`told`), and stop the ledger then.

    A copied or restored home hears of the plan by it; while there are others to hear of it raises LedgerError, too.
    Raises VerificationError for answers that the plan does not ask for.
    """
    require_open(home.ledger_file)
    notice_copy(home)
    if answers := read_answers(told):
        owed_charges(plan, home.policy(), answers)  # raises for what the plan does not ask
        with home.open_ledger() as ledger:
            if ledger.unknown_answers(plan.digest, answers):
                stop_ledger(home.ledger_file, plan.digest, told)
                raise LedgerError(BEHIND)
    hear_of(home, plan.digest)
    require_current(home.ledger_file)


def owed_charges(plan: Plan, policy: Policy, answers: Collection[Answer]) -> list[Owed]:
    """The charges under which `answers` were made, by the plan. Raises VerificationError for what it does not ask."""
    found: list[Owed] = []
    stages = {stage.kind: stage_events(plan, stage) for stage in plan.stages}
    for purpose, number in sorted(answers):
        if purpose in stages and 1 <= number <= len(stages[purpose]):
            found.append(Owed(purpose, number, "train", stages[purpose][number - 1]))
        elif purpose == "utility" and plan.utility is not None and number == 1:
            found.append(Owed(purpose, 1, "holdout", utility_event(plan)))
        elif purpose in plan.parts_at(policy.site) and number == 1:
            found += _release_charges(plan, policy, purpose)
        else:
            raise VerificationError("the coordinator names answers that the accepted plan does not ask for")
    return found


def _release_charges(plan: Plan, policy: Policy, part: str) -> list[Owed]:
    """What a part of the release is charged; where a choice named the model, under the name of the first candidate."""
    found: list[Owed] = []
    name = next(known for known in PARTS if known == part)
    for item in plan.part_at(policy.site, plan.choices[0], name):
        found += _numbered(f"release-{item.method}-{item.model}", "train", release_events(plan, item))
    if policy.release.review.asks(name):
        for cohort, purpose in REVIEW_BOOKS.items():
            found += _numbered(f"{purpose}-{name}", cohort, [REVIEW_WORDS[name]])
    if part == "formal":
        return found + _numbered("gate-formal", "train", formal_gate_events(plan))
    for cohort, purpose in GATE_BOOKS.items():
        found += _numbered(f"{purpose}-declared", cohort, [GATE_VERDICT])
    return found


def _numbered(purpose: str, cohort: Cohort, events: list[Event]) -> list[Owed]:
    return [Owed(purpose, number, cohort, event) for number, event in enumerate(events, start=1)]


def all_answers(plan: Plan, site: str) -> frozenset[Answer]:
    """Everything that a plan can ever have from a site."""
    rounds = [(stage.kind, number) for stage in plan.stages for number in range(1, len(stage_events(plan, stage)) + 1)]
    figure = [("utility", 1)] if plan.utility is not None else []
    return frozenset([*rounds, *figure, *((part, 1) for part in plan.parts_at(site))])


def recoveries(home: SiteHome) -> list[Recovery]:
    """What a stopped ledger lacks, by plan; nothing when it is not stopped. Raises PolicyRefusal, VerificationError.

    Of a plan whose coordinator was not heard since the home was copied or restored: all that it can have had.
    """
    notice_copy(home)
    own, found = home.own_policy(), list[Recovery]()
    told = {digest: frozenset(read_answers(text)) for digest, text in read_behind(home.ledger_file).items()}
    restored = read_restored(home.ledger_file)
    for digest in sorted({*told, *(restored.unheard if restored else ())}):
        plan = known_plan(home, digest)
        policy = own.model_copy(update={"site": name_in(home, plan)})
        with home.open_ledger() as ledger:
            held = told.get(digest) or all_answers(plan, policy.site)
            answers = frozenset(ledger.unknown_answers(digest, held))
        found.append(Recovery(plan, answers, tuple(owed_charges(plan, policy, answers)), digest not in told))
    return found


def recover(home: SiteHome, lost: Collection[Recovery]) -> None:
    """Put the lost charges into the ledger, closed, and let it charge again.

    Whom they were about is lost with them. Who is in the store is bound to the cohort there, so that nobody who may
    have paid in one comes into the other. Raises DataError where the ledger knows somebody in the other cohort.
    """
    with home.open_ledger() as ledger:
        if any(item.owed for item in lost) and home.store.exists():
            ledger.bind(home.open_store().members("train", "holdout"))
        for item in lost:
            ledger.recover(item.plan.study, item.plan.digest, item.owed, item.answers)
    behind_path(home.ledger_file).unlink(missing_ok=True)
    if read_restored(home.ledger_file) is not None:
        whole = sorted(item.plan.study for item in lost if item.unheard)
        counted = f"; all that {', '.join(whole)} can have charged was counted" if whole else ""
        go_on(home, f"a person said that no other copy of this ledger is in use{counted}")

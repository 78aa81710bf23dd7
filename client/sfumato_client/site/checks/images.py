"""The images: those of a source that was looked at, or of the store; and whether training and gate have enough."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato_client.ledger.head import has_begun
from sfumato_client.site.admission import wanting
from sfumato_client.site.checks.finding import Finding, Subject
from sfumato_common.count_text import count_text

_SHOWN = 5


def source(subject: Subject) -> Iterator[Finding]:
    """What of a source would be kept, what is asked, and what a person has to look at."""
    report = subject.report
    if subject.unread:
        yield Finding("wrong", subject.unread)
        return
    if report is None:
        if subject.store is None:
            yield Finding("wrong", "no images were read: 'sfumato-site check source.yaml', then 'sfumato-site ingest'")
        else:
            yield Finding("good", f"the store holds images of {count_text(subject.store.patients, 'patient')}")
        return
    said = f"{report.whose} would be kept, {len(report.skipped)} skipped"
    yield Finding("good" if report.kept else "wrong", said if report.kept else f"{said}: no image could be read")
    for reason, count in [*report.reasons.items()][:_SHOWN]:
        yield Finding("note", f"{count} x {reason}")
    if (more := len(report.reasons) - _SHOWN) > 0:
        yield Finding("note", f"{more} more reasons stand in 'ingest-report.json' of the home")
    for text in report.notes:
        yield Finding("note", text)
    if report.otherwise_note:
        yield Finding("note", report.otherwise_note)
    for question in report.questions:
        yield Finding("wrong", f"to be answered in the source's 'answers': {question}")


def store(subject: Subject) -> Iterator[Finding]:
    """That the store that stands was made for this plan."""
    home, plan = subject.home, subject.plan
    if not home.store.exists():
        yield Finding("note", "no store stands here yet: 'sfumato-site ingest' makes it")
        return
    kept = home.open_store()
    if plan is not None:
        kept.facts.require(plan.image, plan.labels)
    yield Finding("good", "the store that stands is whole" + (" and made for this plan" if plan is not None else ""))


def cohorts(subject: Subject) -> Iterator[Finding]:
    """That training, figure and gate will have the patients that they need, and no charged patient moves."""
    if subject.store is None or subject.plan is None:
        yield Finding("skipped", "whether training and gate have enough patients: no images were looked at")
        return
    missing = wanting(subject.plan, subject.home.policy(), subject.store)
    for text in missing:
        yield Finding("wrong", text)
    if not missing:
        yield Finding("good", "training and gate have the patients that they need")
    home = subject.home
    if has_begun(home.ledger_file):
        with home.open_ledger() as book:
            book.check_members(subject.store.members("train", "holdout"))

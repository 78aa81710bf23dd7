"""The ledger as a person reads it: a line for everything that a study took at one time, and what it cost a patient.

Charges that follow each other under one plan, for one purpose and one cohort, are one line: forty rounds of training
are. Each line has its epsilon alone, and that of all that the cohort was charged up to its end, by the ledger's own
accountant. Beside the lines stands what left, and who let it go.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from sfumato_client.ledger.approvals import approvals
from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.chain import Reservation, Row, reservation, settled_results
from sfumato_client.ledger.decisions import Decided, decisions
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import Cohort, Declared, Event

_WORDS = (  # what a charge's purpose means, in the order in which they are tried
    (r"utility", "a noised test figure"),
    (r"choice", "the choice of the model that is released"),
    (r"table", "an anonymised table"),
    (r"run", "a run of another program"),
    (r"release-(.+)", "images released by {}"),
    (r"gate-control-(\w+)", "the gate's verdict on the {} part, which holdout patients are compared for"),
    (r"gate-(\w+)", "the gate's verdict on the {} part"),
    (r"review-control-(\w+)", "a steward's word on the {} part, who may know holdout patients"),
    (r"review-(\w+)", "a steward's word on the {} part"),
)


@dataclass(frozen=True)
class Line:
    """What one study took at one time: `number` counts lines from 1, `rows` are the charges' own in the ledger.

    `since` and `until` are days; `alone` and `after` epsilons at the budget's delta under add/remove, infinite for what
    left without privacy. `bits` are what no epsilon covers. `open` charges were never noted as carried out, and count
    alike; `recovered` are those that a person put back after the disk was restored.
    """

    number: int
    since: str
    until: str
    study: str
    plan_hash: str
    purpose: str
    words: str
    cohort: Cohort
    charges: int
    alone: float
    after: float
    bits: int
    open: int
    recovered: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Release:
    """What became of a part of a release by leave or by refusal: when, who said so, and which packages.

    `by` has a sentence a voice; `packages` the sha256 of all that may leave by it, empty where it was refused.
    """

    on: str
    study: str
    plan_hash: str
    part: str
    left: bool
    by: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Mark:
    """What else stands in the ledger that a person should know: a restored disk, a steward who came or went."""

    on: str
    words: str


@dataclass(frozen=True)
class Statement:
    """The whole account."""

    lines: tuple[Line, ...]
    releases: tuple[Release, ...]
    marks: tuple[Mark, ...]


def statement(ledger: Ledger, site_key: bytes | None) -> Statement:
    """The account of `ledger`; decisions of stewards are held against `site_key`, without which they are left out.

    Raises LedgerError where the chain, or a signature in it, does not hold.
    """
    rows = ledger._rows()
    names = {row.value["plan_hash"]: str(row.value["study"]) for row in rows if row.value["kind"] == "reserve"}
    said = [each for plan in names for each in (decisions(rows, plan, site_key) if site_key else ())]
    return Statement(_lines(rows, ledger.budget.delta), _releases(rows, names, said), tuple(_marks(rows)))


def purpose_words(purpose: str) -> str:
    """What a charge was for, in words: of 'gan' that a model of that kind was trained."""
    for pattern, words in _WORDS:
        if found := re.fullmatch(pattern, purpose):
            return words.format(*found.groups())
    return f"training of '{purpose}'"


def day(at: str) -> str:
    """The day of a row's time; '' where the row is of a version that wrote none."""
    return at[:10]


def _lines(rows: Sequence[Row], delta: float) -> tuple[Line, ...]:
    charges = [(reservation(row), row.value) for row in rows if row.value["kind"] == "reserve"]
    settled, found = settled_results(rows), list[Line]()
    for cohort in get_args(Cohort):
        before, mine = list[Event](), [one for one in charges if one[0].cohort == cohort]
        for _, together in itertools.groupby(mine, key=lambda one: (one[0].plan_hash, one[0].purpose)):
            group = list(together)
            before += [charge.event for charge, _ in group]
            found.append(_line(group, before, settled, delta))
    found.sort(key=lambda line: line.rows)
    return tuple(_numbered(found))


def _line(
    group: Sequence[tuple[Reservation, Mapping[str, Any]]],
    before: Sequence[Event],
    settled: Mapping[int, str | None],
    delta: float,
) -> Line:
    events, first = [charge.event for charge, _ in group], group[0][0]
    days = [day(str(value.get("at", ""))) for _, value in group]
    return Line(
        number=0,
        since=days[0],
        until=days[-1],
        study=first.study,
        plan_hash=first.plan_hash,
        purpose=first.purpose,
        words=purpose_words(first.purpose),
        cohort=first.cohort,
        charges=len(group),
        alone=epsilon(events, delta),
        after=epsilon(before, delta),
        bits=sum(event.bits for event in events if isinstance(event, Declared)),
        open=sum(charge.number not in settled for charge, _ in group),
        recovered=sum(bool(value.get("recovered")) for _, value in group),
        rows=tuple(charge.number for charge, _ in group),
    )


def _numbered(lines: Sequence[Line]) -> Iterator[Line]:
    for number, line in enumerate(lines, start=1):
        yield replace(line, number=number)


def _releases(rows: Sequence[Row], names: Mapping[str, str], said: Sequence[Decided]) -> tuple[Release, ...]:
    """Parts that were let go, shards together, then those that a steward refused, each by its day."""
    times = {
        row.value["package_sha256"]: str(row.value.get("at", "")) for row in rows if row.value["kind"] == "approve"
    }
    voices = {each.row_hash: each.decision for each in said}
    found = list[Release]()
    for (plan, part), together in itertools.groupby(approvals(rows), key=lambda leave: (leave.plan_hash, leave.part)):
        leaves = list(together)
        people = [voices[known] for known in leaves[0].decided if known in voices]
        by = {
            "gate": ("this site's policy, after the gate",),
            "no-gate": ("this site's policy, which asks for no gate",),
            "steward": tuple(f"steward {one.steward} on {day(one.at)}: {one.reason}" for one in people),
        }[leaves[0].by]
        on = day(times[leaves[0].package_sha256]) or day(max((one.at for one in people), default=""))
        study = names.get(plan, plan[:12])
        found.append(Release(on, study, plan, part, True, by, tuple(leave.package_sha256 for leave in leaves)))
    for one in (each.decision for each in said if each.decision.verdict == "refuse"):
        by = (f"steward {one.steward}, {one.ground}: {one.reason}",)
        found.append(Release(day(one.at), names.get(one.plan_hash, ""), one.plan_hash, one.part, False, by, ()))
    return tuple(found)


def _marks(rows: Sequence[Row]) -> Iterator[Mark]:
    for row in rows:
        value, on = row.value, day(str(row.value.get("at", "")))
        match value["kind"]:
            case "genesis":
                yield Mark(on, f"this ledger was begun for site '{value['site']}'")
            case "steward":
                change = "became a steward" if value["change"] == "add" else "is no steward any more"
                by = f", let in by {value['by']}" if value.get("by") else ""
                yield Mark(on, f"{value['name']} {change}{by}")
            case "recover":
                yield Mark(on, f"charges of plan {str(value['plan_hash'])[:12]} were put back after a restored disk")
            case "restore":
                yield Mark(on, str(value["words"]))

"""What one check of the evidence found: a status that its evidence carries, in one sentence, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sfumato_common.evidence.facts import Facts, Source

Status = Literal["not shown", "partly", "shown"]
ORDER: tuple[Status, ...] = ("not shown", "partly", "shown")


@dataclass(frozen=True)
class Finding:
    """`says` is what the evidence shows, `missing` what it does not and who could; one of them is empty at the ends."""

    status: Status
    says: str
    missing: str
    evidence: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        assert (self.status == "shown") == (not self.missing), "what is shown whole misses nothing"
        assert (self.status == "not shown") == (not self.says), "what is not shown says nothing"
        assert self.evidence or self.status == "not shown", "no statement without evidence"


Check = Callable[[Facts], Finding]


def shown(says: str, *evidence: Source) -> Finding:
    """The evidence carries all of it."""
    return Finding("shown", says, "", evidence)


def partly(says: str, missing: str, *evidence: Source) -> Finding:
    """The evidence carries `says`, and not what is missing."""
    return Finding("partly", says, missing, evidence)


def not_shown(missing: str) -> Finding:
    """Nothing here carries it."""
    return Finding("not shown", "", missing)


def absent(missing: str) -> Check:
    """A check of what no file of this program can show: a person has to."""
    return lambda facts: not_shown(missing)

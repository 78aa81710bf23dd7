"""One framework: its requirements in our own words, clause by clause, each with the checks that speak to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# how much of the clause was read by whoever wrote the row
Read = Literal["read", "read in version 1.0", "summary read", "heading read", "clause text not checked"]


@dataclass(frozen=True)
class Requirement:
    """A row: the clause, what it asks in our words, the names of checks, and how much of its text was read."""

    clause: str
    asks: str
    checks: tuple[str, ...]
    read: Read


@dataclass(frozen=True)
class Framework:
    """`key` is its short name in JSON, `note` what a reader must know about how it was read."""

    key: str
    title: str
    note: str
    requirements: tuple[Requirement, ...]

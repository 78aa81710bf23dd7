"""Rows of which images were taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowRead:
    """A row of which images were taken: tokens of what it is about and of all it says, its file's state, its images.

    They are `count` from number `first` on. `row` is empty where the row has to be read again.
    """

    about: str
    row: str
    size: int
    time: int
    first: int
    count: int

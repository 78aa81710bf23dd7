"""Rows of which images were taken, in columns, as what is known of the images is."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = 16


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


class RowsRead:
    """A list of such rows that only grows, and makes each when it is asked for."""

    def __init__(self) -> None:
        self._tokens, self._numbers = bytearray(), array("q")

    def append(self, row: RowRead) -> None:
        """One more."""
        for token in (row.about, row.row):
            self._tokens += bytes.fromhex(token) or bytes(_TOKEN)
        self._numbers.extend((row.size, row.time, row.first, row.count))

    def __len__(self) -> int:
        return len(self._numbers) // 4

    def __iter__(self) -> Iterator[RowRead]:
        for at in range(len(self)):
            both = bytes(self._tokens[at * 2 * _TOKEN : (at + 1) * 2 * _TOKEN])
            about, row = both[:_TOKEN], both[_TOKEN:]
            yield RowRead(about.hex(), row.hex() if any(row) else "", *self._numbers[at * 4 : at * 4 + 4])

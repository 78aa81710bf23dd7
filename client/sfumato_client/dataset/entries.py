"""What is known of the images of a set, in columns: of a hundred thousand images 20 MB and not 200."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, overload

from sfumato_client.ingest import Entry, Facts

_TOKEN = 16


class Entries(Sequence[Entry]):
    """A list of entries that only grows, and makes each when it is asked for."""

    def __init__(self) -> None:
        # five tokens and the pixels' digest an image; what few values have, by number; names as one text
        self._tokens, self._texts, self._ends = bytearray(), bytearray(), array("q", [0])
        self._labels, self._rare = array("q"), array("l")
        self._values: list[tuple[Any, ...]] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def append(self, entry: Entry) -> None:
        """One more."""
        facts = entry.facts
        for token in (entry.patient_id, entry.alike, facts.person, facts.study, facts.instance):
            self._tokens += bytes.fromhex(token) or bytes(_TOKEN)
        self._tokens += entry.digest
        self._texts += facts.reference.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._texts))
        self._labels.append(entry.label)
        rare = (entry.split, entry.view, entry.kind, entry.drawn, facts.device, facts.modality, entry.notes)
        number = self._numbers.setdefault(rare, len(self._values))
        if number == len(self._values):
            self._values.append(rare)
        self._rare.append(number)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, at: int) -> Entry: ...

    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...

    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError("no such image in this set")
        begin = at * 6 * _TOKEN
        tokens = [bytes(self._tokens[begin + n * _TOKEN : begin + (n + 1) * _TOKEN]) for n in range(6)]
        patient, alike, person, study, instance = ("" if not any(token) else token.hex() for token in tokens[:5])
        reference = self._texts[self._ends[at] : self._ends[at + 1]].decode("utf-8", "surrogateescape")
        split, view, kind, drawn, device, modality, notes = self._values[self._rare[at]]
        facts = Facts(reference, instance, study, person, device, modality)
        return Entry(patient, self._labels[at], split, view, tokens[5], facts, notes, alike, kind, drawn)

    def __iter__(self) -> Iterator[Entry]:
        return (self[at] for at in range(len(self)))

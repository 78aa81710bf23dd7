"""What is known of the images and rows of a set while it is read: lists on the disk, of which a block is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sfumato_client.dataset.rows import RowRead
from sfumato_client.ingest import Blocks, Entry, Facts, Skipped


def new_entries(folder: Path) -> Blocks[Entry]:
    """An empty list of entries."""
    return Blocks(_words, _entry, folder)


def new_rows(folder: Path) -> Blocks[RowRead]:
    """An empty list of rows of which images were taken."""
    return Blocks(lambda row: (row.about, row.row, row.size, row.time, row.first, row.count), _row, folder)


def new_skipped(folder: Path) -> Blocks[Skipped]:
    """An empty list of what was not read."""
    return Blocks(lambda one: (one.reference, one.reason), lambda said: Skipped(*said), folder)


def _words(entry: Entry) -> list[Any]:
    facts = entry.facts
    said = (entry.patient_id, entry.label, entry.split, entry.view, entry.digest.hex())
    known = (facts.reference, facts.instance, facts.study, facts.person, facts.device, facts.modality, facts.others)
    return [*said, known, entry.notes, entry.alike, entry.kind, entry.drawn, entry.bare]


def _entry(said: Sequence[Any]) -> Entry:
    patient, label, split, view, digest, facts, notes, alike, kind, drawn, bare = said
    known = (bytes.fromhex(digest), Facts(*facts), tuple(notes))
    return Entry(patient, label, split, view, *known, alike, kind, drawn, bare)


def _row(said: Sequence[Any]) -> RowRead:
    return RowRead(*said)

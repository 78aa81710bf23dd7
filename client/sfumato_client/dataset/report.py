"""What became of a set at ingest: for the hospital's own eyes, with exact counts and file names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sfumato_client.ingest import Entry, Examined, Question, Skipped, Split, counted
from sfumato_common.errors import DataError
from sfumato_common.files import write_atomic

REPORT = "ingest-report.json"
_SHOWN = 5
JOINED = " = "  # between what belongs together in a question


@dataclass(frozen=True)
class IngestReport:
    """What was taken and what was not. Exact counts and file names: stays in the site."""

    kept: int
    patients: int
    patients_by_split: dict[str, int]
    skipped: tuple[Skipped, ...]
    images_by_view: dict[str, int]
    images_by_device: dict[str, int] = field(default_factory=dict)
    images_by_modality: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    read_otherwise: tuple[tuple[str, tuple[str, ...]], ...] = ()
    # of a look before the ingest: what the sheet shows, and which images are unlike others of their device
    sheet: str = ""
    unusual: tuple[str, ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """How often each reason stands, most first."""
        return counted(entry.reason for entry in self.skipped)

    def write(self, path: Path) -> None:
        """Write as JSON, readable by the owner only."""
        value = {
            "kept": self.kept,
            "patients": self.patients,
            "patients_by_split": self.patients_by_split,
            "images_by_view": self.images_by_view,
            "images_by_device": self.images_by_device,
            "images_by_modality": self.images_by_modality,
            "questions": [{"question": str(one), "about": list(one.about)} for one in self.questions],
            "notes": list(self.notes),
            "unlike_others_of_their_device": list(self.unusual),
            "skipped": [{"reference": entry.reference, "reason": entry.reason} for entry in self.skipped],
            "read_otherwise": [{"reference": name, "notes": list(notes)} for name, notes in self.read_otherwise],
        }
        write_atomic(path, json.dumps(value, indent=2) + "\n", mode=0o600)

    def require_answers(self) -> None:
        """Raise DataError where nothing could be read, or where a person has to answer first."""
        if not self.kept and not self.questions:
            most = "".join(f"\n- {count} x {reason}" for reason, count in [*self.reasons.items()][:_SHOWN])
            raise DataError(f"no image could be read; {REPORT} in the site's home says why, file by file:{most}")
        if self.questions:
            asked = "".join(f"\n- {question}" for question in self.questions)
            raise DataError(f"nothing was stored; {REPORT} in the site's home names what this is about:{asked}")


def with_names(questions: Sequence[Question], names: Callable[[], Mapping[str, str]]) -> list[Question]:
    """Questions whose tokens of patients are the identifiers again; `names` is asked only where there is a question."""
    if not questions:
        return []
    known = names()

    def named(text: str) -> str:
        return JOINED.join(sorted(known.get(part, part) for part in text.split(JOINED)))

    return [replace(one, about=tuple(sorted(map(named, one.about)))) for one in questions]


def report_of(
    entries: Sequence[Entry], skipped: Sequence[Skipped], examined: Examined, splits: Mapping[str, Split]
) -> IngestReport:
    """The report of a set that was examined."""

    def kept() -> Iterator[Entry]:
        return (entry for at, entry in enumerate(entries) if at not in examined.dropped)

    lost = [Skipped(entries[at].facts.reference, reason) for at, reason in examined.dropped.items()]
    found = list(splits.values())
    return IngestReport(
        len(entries) - len(examined.dropped),
        len(splits),
        {"train": found.count("train"), "holdout": found.count("holdout")},
        (*skipped, *lost),
        dict(sorted(counted(entry.view for entry in kept()).items())),
        counted(entry.facts.device for entry in kept()),
        counted(entry.facts.modality for entry in kept()),
        tuple(examined.notes),
        tuple(examined.questions),
        tuple((entry.facts.reference, entry.notes) for entry in entries if entry.notes),
    )

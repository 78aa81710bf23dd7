"""What became of a set at ingest: for the hospital's own eyes, with exact counts and file names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sfumato_client.dataset.people import People
from sfumato_client.ingest import Entry, Examined, Question, Skipped, counted
from sfumato_common.count_text import count_text
from sfumato_common.errors import DataError
from sfumato_common.files import move_into_place, room_errors

REPORT = "ingest-report.json"
_SHOWN = 5
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
JOINED = " = "  # between what belongs together in a question


@dataclass(frozen=True)
class IngestReport:
    """What was taken and what was not. Exact counts and file names: stays in the site."""

    kept: int
    patients: int
    patients_by_split: dict[str, int]
    skipped: Sequence[Skipped]
    images_by_view: dict[str, int]
    images_by_device: dict[str, int] = field(default_factory=dict)
    images_by_modality: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    # how many images were read otherwise than their files say, and which, with notes
    read_otherwise: int = 0
    otherwise: Callable[[], Iterable[Entry]] = tuple
    # of a look before the ingest: what the sheet shows, and which images are unlike others of their device
    sheet: str = ""
    unusual: tuple[str, ...] = ()

    @property
    def whose(self) -> str:
        """How many images were taken, and of how many patients, in words."""
        return f"{count_text(self.kept, 'image')} of {count_text(self.patients, 'patient')}"

    @property
    def otherwise_note(self) -> str:
        """That images were read otherwise, in words; '' where none was."""
        what = count_text(self.read_otherwise, "image was", "images were")
        return f"{what} read otherwise than they say; the report names them" if self.read_otherwise else ""

    @property
    def reasons(self) -> dict[str, int]:
        """How often each reason stands, most first."""
        return counted(entry.reason for entry in self.skipped)

    def write(self, path: Path) -> None:
        """Write as JSON, readable by the owner only; the longest parts as they come."""
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
        }
        skipped = ({"reference": one.reference, "reason": one.reason} for one in self.skipped)
        noted = ({"reference": entry.facts.reference, "notes": list(entry.notes)} for entry in self.otherwise())
        temporary = path.with_name(f".{path.name}.new")
        with room_errors(), os.fdopen(os.open(temporary, _NEW, 0o600), "w", encoding="utf-8") as stream:
            stream.write(json.dumps(value, indent=2).removesuffix("\n}"))
            for name, parts in (("skipped", skipped), ("read_otherwise", noted)):
                stream.write(f',\n  "{name}": [')
                for number, part in enumerate(parts):
                    stream.write(f"{',' if number else ''}\n    {json.dumps(part)}")
                stream.write("\n  ]")
            stream.write("\n}\n")
        move_into_place(temporary, path, 0o600)

    def require_answers(self) -> None:
        """Raise DataError where nothing could be read, or where a person has to answer first."""
        if not self.kept and not self.questions:
            most = "".join(f"\n- {count} x {reason}" for reason, count in [*self.reasons.items()][:_SHOWN])
            raise DataError(f"no image could be read; {REPORT} in the site's home says why, file by file:{most}")
        if self.questions:
            asked = "".join(f"\n- {question}" for question in self.questions)
            raise DataError(f"nothing was stored; {REPORT} in the site's home names what this is about:{asked}")


def with_names(questions: Sequence[Question], names: Callable[[Collection[str]], Mapping[str, str]]) -> list[Question]:
    """Questions whose tokens of patients are the identifiers again; `names` is asked for those that stand in one."""
    wanted = {part for one in questions for text in one.about for part in text.split(JOINED)}
    known = names(wanted) if wanted else {}

    def named(text: str) -> str:
        return JOINED.join(sorted(known.get(part, part) for part in text.split(JOINED)))

    return [replace(one, about=tuple(sorted(map(named, one.about)))) for one in questions]


def report_of(entries: Sequence[Entry], skipped: Sequence[Skipped], examined: Examined, people: People) -> IngestReport:
    """The report of a set that was examined; `skipped` is all that is not kept."""

    def kept() -> Iterator[Entry]:
        return (entry for at, entry in enumerate(entries) if at not in examined.dropped)

    def otherwise() -> Iterator[Entry]:
        return (entry for entry in entries if entry.notes)

    return IngestReport(
        len(entries) - len(examined.dropped),
        len(people.tokens),
        {"train": people.count("train"), "holdout": people.count("holdout")},
        skipped,
        dict(sorted(counted(entry.view for entry in kept()).items())),
        counted(entry.facts.device for entry in kept()),
        counted(entry.facts.modality for entry in kept()),
        tuple(examined.notes),
        tuple(examined.questions),
        sum(1 for _ in otherwise()),
        otherwise,
    )

"""What is asked of a PACS, and what it answers: studies and their objects, whichever way it is spoken to."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from sfumato_client.pacs.incoming import Expected, Incoming
from sfumato_common.errors import ConfigError

# answers that are looked at for one that is taken
_TRIED = 20


@dataclass(frozen=True)
class Query:
    """Which studies: first and last day, modalities (any of them), and words of the description with `*` and `?`.

    Where accession numbers are given, it is those studies alone; the PACS is asked for one after the other.

    Descriptions are compared here and not by the PACS: whether capitals, blanks and letters beyond ASCII count differs
    from one to the next, and what a PACS leaves out nobody misses.
    """

    first: date | None = None
    last: date | None = None
    modalities: tuple[str, ...] = ()
    description: str = ""
    accessions: tuple[str, ...] = ()

    @property
    def asked(self) -> list[tuple[str, str]]:
        """(modality, accession number) of every question, '' for any."""
        return list(itertools.product(self.modalities or ("",), self.accessions or ("",)))

    @property
    def dates(self) -> str:
        """A range of StudyDate (PS3.4 C.2.2.2.5), empty for any."""
        if self.first is None and self.last is None:
            return ""
        return "-".join(day.strftime("%Y%m%d") if day else "" for day in (self.first, self.last))

    @property
    def pattern(self) -> str:
        """What a description has to match, capitals aside; words without a `*` may stand anywhere in it."""
        text = self.description
        return text if not text or set(text) & set("*?") else f"*{text}*"

    def takes(self, study: Study) -> bool:
        """Whether a study is what was asked for: not every PACS heeds every key."""
        day = study.date
        if (self.first or self.last) and not (len(day) == 8 and day.isdecimal()):
            return False
        if (self.first and day < self.first.strftime("%Y%m%d")) or (self.last and day > self.last.strftime("%Y%m%d")):
            return False
        if self.accessions and study.accession not in self.accessions:
            return False
        if self.modalities and study.modalities and not set(self.modalities) & set(study.modalities):
            return False
        return not self.pattern or fnmatch.fnmatchcase(
            study.description.upper(), self.pattern.upper().replace("[", "[[]")
        )


@dataclass(frozen=True)
class Study:
    """A line of the work-list; `patient` tells patients apart and is shown to nobody."""

    study: str
    date: str
    modalities: tuple[str, ...]
    description: str
    accession: str
    patient: str
    objects: int | None


# what came of objects that were not kept: SOP Instance UID -> reason without a value of a patient
Refused = dict[str, str]


class Archive(Protocol):
    """A PACS as `fetch` sees it; all raise PacsError or ConfigError, and Interrupted where trying again may help."""

    # how many objects are asked for at once
    together: int

    def studies(self, query: Query) -> Iterator[Study]:
        """The studies that fit, each once."""

    def objects(self, study: str, modalities: Sequence[str]) -> list[Expected]:
        """The objects of a study, of series of these modalities where some are named."""

    def retrieve(self, wanted: Sequence[Expected], incoming: Incoming, refused: Refused) -> None:
        """Have objects of one series sent and kept; notes in `refused` why some were not."""

    def close(self) -> None:
        """End connections."""


class InterruptedTransferError(Exception):
    """A transfer broke off, or the PACS is busy: the same may succeed in a while. Its text is a sentence."""


def modality_words(given: Sequence[str]) -> tuple[str, ...]:
    """Modalities as PS3.3 C.7.3.1.1.1 writes them. Raises ConfigError."""
    words = [word.strip().upper() for word in given]
    for word in words:
        if not word.isalnum() or len(word) > 16:
            raise ConfigError("a modality is a short word such as DX, CR or MG; repeat --modality for several")
    return tuple(dict.fromkeys(words))


def limited(found: Iterator[Study], query: Query, most: int) -> Iterator[Study]:
    """Studies that the query takes, each once. Raises ConfigError where more than `most` are found."""
    seen = set[str]()
    for number, study in enumerate(found):
        if len(seen) >= most or number >= _TRIED * most:
            raise ConfigError(f"the query finds more than {most} studies; narrow its dates, or raise 'most_studies'")
        if study.study not in seen and query.takes(study):
            seen.add(study.study)
            yield study

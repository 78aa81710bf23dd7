"""A folder and its table as a row of jobs, one a listed file; what runs them gives each job's images, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_client.ingest.folders import Folder, folder_of
from sfumato_client.ingest.records import UNLISTED, SiteImage, Skipped, UnreadableError
from sfumato_client.ingest.table import Listed, has_splits
from sfumato_common.tables import Row

# what became of one job: its images, or why there are none
Results = list[SiteImage | Skipped]


@dataclass(frozen=True)
class Job:
    """One listed file; `splits` says whether the table tells splits.

    A reader that takes several images of a file calls `step` after each: what one file may take, each of them may.
    """

    path: Path
    row: Row
    splits: bool
    step: Callable[[], None] = field(default=lambda: None, compare=False)


ReadFile = Callable[[Job], Results]
Run = Callable[[Iterable[Job | Skipped]], Iterator[Results]]


def jobs_of(folder: Folder, rows: Sequence[Row], listed: Listed) -> Iterator[Job | Skipped]:
    """What has to be read of every row, or why nothing has."""
    splits = has_splits(rows)
    for row in rows:
        try:
            path = folder.find(row["file"])
            listed.take(path, row)
        except UnreadableError as reason:
            yield Skipped(row["file"], str(reason))
        else:
            yield Job(path, row, splits)


def read_folder(folder: Path, table: Path, rows: Sequence[Row], run: Run, start: int = 0) -> Iterator[Results]:
    """The results of every row from number `start` on, then the files that no row lists, one each.

    Raises DataError when the folder cannot be read; a broken file never raises.
    """
    place, listed = folder_of(folder), Listed()
    place.check()
    steps = jobs_of(place, rows, listed)
    for _ in range(min(start, len(rows))):
        next(steps)
    yield from run(steps)
    unlisted = place.unlisted(listed.names(folder), table)
    for at, name in enumerate(unlisted, len(rows)):
        if at >= start:
            yield [Skipped(name, UNLISTED)]


def here(read: ReadFile) -> Run:
    """Run jobs in this process, one after another."""

    def run(steps: Iterable[Job | Skipped]) -> Iterator[Results]:
        for step in steps:
            yield [step] if isinstance(step, Skipped) else do(read, step)

    return run


def do(read: ReadFile, job: Job) -> Results:
    """The results of one job, whose reasons become results."""
    try:
        return read(job)
    except UnreadableError as reason:
        return [Skipped(job.row["file"], str(reason))]
    except MemoryError:
        return [Skipped(job.row["file"], "reading it needs more memory than one file may take")]

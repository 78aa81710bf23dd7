"""A folder and its table as a row of jobs, one a listed file; what runs them gives each job's images, in order."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_client.ingest.folders import Folder, folder_of
from sfumato_client.ingest.records import UNLISTED, Kept, SiteImage, Skipped, Stamp, Stamped
from sfumato_client.ingest.table import Listed, Listing
from sfumato_common.dicom.unreadable import UnreadableError
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


# the numbers of the images that a store has of a row as it is; none: it has to be read
Known = Callable[[Stamp], tuple[int, ...]]
ReadFile = Callable[[Job], Results]
Run = Callable[[Iterable[Job | Skipped]], Iterator[Results]]


def unknown(stamp: Stamp) -> tuple[int, ...]:
    """Where no store stands."""
    return ()


def words_of(row: Row, splits: bool) -> str:
    """All that a row says, as one text."""
    return json.dumps([splits, sorted(row.items())])


def jobs_of(
    folder: Folder, rows: Iterable[Row], splits: bool, listed: Listed, known: Known, stamps: deque[Stamp]
) -> Iterator[Job | Skipped]:
    """What has to be read of every row, or why nothing has; the row's stamp first, at the end of `stamps`."""
    for row in rows:
        stamp = Stamp(row["file"], words_of(row, splits), row["file"], *folder.state_of(row["file"]))
        stamps.append(stamp)
        try:
            path = folder.find(row["file"])
            listed.take(path, row)
        except UnreadableError as reason:
            yield Skipped(row["file"], str(reason))
            continue
        numbers = known(stamp)
        yield Kept(row["file"], "", numbers) if numbers else Job(path, row, splits)


def read_folder(
    folder: Path, table: Path, rows: Listing, run: Run, start: int = 0, known: Known = unknown
) -> Iterator[Results]:
    """The results of every row from number `start` on, stamped, then the files that no row lists, one each.

    Rows of which `known` has the images are not read. Raises DataError when the folder cannot be read; a broken file
    never raises.
    """
    place, listed, stamps = folder_of(folder), Listed(len(rows)), deque[Stamp]()
    place.check()
    steps = jobs_of(place, rows, rows.splits, listed, known, stamps)
    for _ in range(min(start, len(rows))):
        next(steps)
    stamps.clear()
    for results in run(steps):
        yield Stamped(results, stamps.popleft())
    for at, name in enumerate(place.unlisted(listed, table), len(rows)):
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

"""Readers' processes, a core each: files are decoded beside each other, and none of them can end the ingest.

A file that ends its reader, takes more than 10 s of a processor an image or says nothing for two minutes is skipped
with that reason, and the next one gets a new reader. Results come in the order of the jobs, whoever was first.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sfumato_client.ingest.jobs import Job, Results
from sfumato_client.ingest.records import Skipped
from sfumato_client.ingest.results import HEAD, STEP, from_bytes, lengths
from sfumato_client.ingest.sources import AnySource
from sfumato_common.study.terms import ImageForm
from sfumato_common.supervise import Child

_PROGRAM = "sfumato_client.ingest.reader_program"
_START_SECONDS = 120.0  # a slow machine imports for long
_PROCESSOR_SECONDS, _SILENT_SECONDS = 10.0, 120.0
_MOST_SECONDS = 1800.0  # of a file with several images, each of which has the limits of one
_AHEAD = 4  # jobs a reader that are under way before the first of them is taken
_LOOK = 0.25
# memory that glibc keeps (mallopt(3)): a film's arrays are as large as those of the one before. Without it, in half of
# all readers they were given back each time and cleared anew: 747,000 faults of pages over 200 films instead of 6,000
_ARRAYS = str(2**27)
_KEEPING = {"MALLOC_MMAP_THRESHOLD_": _ARRAYS, "MALLOC_TRIM_THRESHOLD_": _ARRAYS}


class FileLostError(Exception):
    """A reader ended or was ended over a file; the text is that file's reason."""


class Pool:
    """`workers` readers of one source for a plan's form and labels; a context manager that ends them."""

    def __init__(self, source: AnySource, form: ImageForm, labels: list[str], workers: int) -> None:
        terms = {"source": source.model_dump(mode="json"), "form": form.model_dump(mode="json"), "labels": labels}
        self._terms = json.dumps(terms).encode() + b"\n"
        self._shape, self._labels, self._workers = form.shape, len(labels), workers
        self._own, self._all, self._lock = threading.local(), set[_Reader](), threading.Lock()
        self._threads = ThreadPoolExecutor(workers, "reader")

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for reader in self._all:
                reader.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def run(self, steps: Iterable[Job | Skipped]) -> Iterator[Results]:
        """The results of every step, in order."""
        under_way: deque[Future[Results]] = deque()
        for step in steps:
            under_way.append(self._begin(step))
            if len(under_way) > _AHEAD * self._workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _begin(self, step: Job | Skipped) -> Future[Results]:
        if isinstance(step, Skipped):
            done: Future[Results] = Future()
            done.set_result([step])
            return done
        return self._threads.submit(self._read, step)

    def _read(self, job: Job) -> Results:
        reader = getattr(self._own, "reader", None)
        if reader is None:
            reader = self._own.reader = _Reader(self._terms)
            with self._lock:
                self._all.add(reader)
        try:
            text, body = reader.ask(job)
            return from_bytes(text, body, self._shape, self._labels)
        except (FileLostError, ValueError, KeyError, TypeError) as lost:
            reader.stop()
            self._own.reader = None
            with self._lock:
                self._all.discard(reader)
            why = str(lost) if isinstance(lost, FileLostError) else "its reader gave no results"
            return [Skipped(job.row["file"], why)]


class _Reader:
    """One process; asked one job at a time."""

    def __init__(self, terms: bytes) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **_KEEPING}
        self._child = Child("reader", [sys.executable, "-m", _PROGRAM], environment, Path(os.devnull), piped=True)
        self._write(terms)
        self._fresh = True

    def ask(self, job: Job) -> tuple[bytes, bytes]:
        """(words, pixels) of a job. Raises FileLostError."""
        said = {"path": str(job.path), "row": job.row, "splits": job.splits}
        self._write(json.dumps(said).encode() + b"\n")
        first = begun = time.monotonic()
        spent = self._processor()
        while (head := self._take(HEAD, begun, spent)) == STEP:
            self._fresh = False
            begun, spent = time.monotonic(), self._processor()
            if begun - first > _MOST_SECONDS:
                raise FileLostError(f"reading all its images takes more than {_MOST_SECONDS / 60:.0f} minutes")
        self._fresh = False
        words, pixels = lengths(head)
        return self._take(words, begun, spent), self._take(pixels, begun, spent)

    def stop(self) -> None:
        """End the process."""
        self._child.stop(grace_s=0.0)

    def _write(self, data: bytes) -> None:
        try:
            self._child.to_child.write(data)
            self._child.to_child.flush()
        except (OSError, ValueError):
            raise FileLostError(_ENDED) from None

    def _take(self, size: int, begun: float, spent: float) -> bytes:
        """The next `size` bytes of its answer, within the limits of one file."""
        parts, left, stream = list[bytes](), size, self._child.from_child.fileno()
        while left:
            ready, _, _ = select.select([stream], [], [], _LOOK)
            if ready:
                part = os.read(stream, min(left, 1 << 20))
                if not part:
                    raise FileLostError(_ENDED)
                parts.append(part)
                left -= len(part)
                continue
            waited = time.monotonic() - begun
            if waited > _SILENT_SECONDS + (_START_SECONDS if self._fresh else 0.0):
                raise FileLostError(f"reading it says nothing for {_SILENT_SECONDS:.0f} s")
            if not self._fresh and self._processor() - spent > _PROCESSOR_SECONDS:
                raise FileLostError(f"reading it takes more than {_PROCESSOR_SECONDS:.0f} s of a processor")
        return b"".join(parts)

    def _processor(self) -> float:
        """Processor seconds that it has taken; 0 where the system does not tell."""
        try:
            fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_ENDED = "reading it ended the reader's process: the file is damaged, or needs more memory than one file may take"

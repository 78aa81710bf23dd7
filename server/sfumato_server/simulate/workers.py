"""Where the sites of a simulation live: worker processes, `python -m sfumato_client.site.simulation`.

A site's home is touched by one process at a time, so a ledger never by two. How workers are kept is a line of
`simulate/engines.py`; what is said to one, and what becomes of one that dies, is the same everywhere and stands here.
"""

from __future__ import annotations

import queue
import shutil
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from sfumato_common.errors import DataError, FederationError
from sfumato_common.memory import VARIABLE, budget
from sfumato_common.protocol.frames import Frame, read_frame, write_frame
from sfumato_common.supervise import Child
from sfumato_common.types import AnyArray, Arrays

Deliver = Callable[[bytes], bool]


def _refuse(data: bytes) -> bool:
    del data
    return False


class Worker(Protocol):
    """One worker process, wherever it runs."""

    def tell(self, header: Mapping[str, Any], arrays: Arrays) -> Frame | None:
        """Send one frame and wait for the next that comes back; None when the process is gone."""
        ...

    def restart(self) -> None:
        """Another process takes its place, with the same homes."""
        ...


class Workers(ABC):
    """All of them; `ask` may be called from `at_once` threads, and waits for a worker that is free.

    Homes are named by paths relative to `folder`, or to what stands for it where a worker runs.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.seconds, self.megabytes = 0.0, 0
        self._used = threading.Lock()

    @property
    def at_once(self) -> int:
        """From how many threads it is worth to ask."""
        return self.number

    @abstractmethod
    def _turn(self, home: str) -> AbstractContextManager[Worker]:
        """A worker for a question about `home`, or about none (''), which nobody else has meanwhile."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Remove the homes below `folder`, wherever they are."""

    @abstractmethod
    def stop(self) -> None:
        """End all of them."""

    def ask(self, header: Mapping[str, Any], arrays: Arrays, deliver: Deliver = _refuse) -> Frame:
        """One question; `deliver` is told of a package, and says whether it was taken.

        Raises DataError with what the site's half said was wrong, and FederationError when the worker died: another
        takes its place.
        """
        home = header.get("home") or header.get("site", {}).get("home", "")
        with self._turn(home) as worker:
            said, found = _converse(worker, header, arrays, deliver)
        with self._used:
            self.seconds += said["usage"]["seconds"]
            self.megabytes = max(self.megabytes, said["usage"]["megabytes"])
        if "error" in said:
            raise DataError(said["error"])
        return said, found


class Pool(Workers):
    """Processes of this machine; any of them answers for any site, one question of a site at a time."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(folder, number)
        self._free: queue.Queue[_Local] = queue.Queue()
        self._all = [_Local(folder, index, number) for index in range(number)]
        for worker in self._all:
            self._free.put(worker)

    @contextmanager
    def _turn(self, home: str) -> Iterator[Worker]:
        del home
        worker = self._free.get()
        try:
            yield worker
        finally:
            self._free.put(worker)

    def remove(self, folder: str) -> None:
        """See Workers."""
        shutil.rmtree(self.folder / folder, ignore_errors=True)

    def stop(self) -> None:
        """See Workers."""
        for worker in self._all:
            worker.child.stop()


class _Local:
    """A worker process of this machine."""

    def __init__(self, folder: Path, index: int, number: int) -> None:
        self._start = folder, index, number
        self.child = start_worker(*self._start)

    def tell(self, header: Mapping[str, Any], arrays: Arrays) -> Frame | None:
        """See Worker."""
        try:
            write_frame(self.child.to_child, header, arrays)
            return read_frame(self.child.from_child)
        except OSError:
            return None

    def restart(self) -> None:
        """See Worker."""
        self.child.stop()
        self.child = start_worker(*self._start)


def start_worker(folder: Path, index: int, beside: int, more: Mapping[str, str] | None = None) -> Child:
    """Start one whose home and logs are below `folder`; `beside` share this machine's memory, `more` is environment."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
        VARIABLE: str(max(1, budget() // (1 + beside))),
        **(more or {}),
    }
    command = [sys.executable, "-P", "-m", "sfumato_client.site.simulation"]
    return Child(f"worker {index}", command, environment, folder / "logs" / f"worker-{index}.log", piped=True)


def _converse(worker: Worker, header: Mapping[str, Any], arrays: Arrays, deliver: Deliver) -> Frame:
    while (frame := worker.tell(header, arrays)) is not None:
        if "deliver" not in frame[0]:
            return frame
        package: AnyArray = frame[1]["package"]
        header, arrays = {"refused": not deliver(package.tobytes())}, {}
    worker.restart()
    raise FederationError("a worker of the simulation died; the logs in its folder 'logs' say why")

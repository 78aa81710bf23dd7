"""The processes that the sites of a simulation live in, one a core: `python -m sfumato_client.site.simulation`."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sfumato_common.errors import DataError, FederationError
from sfumato_common.memory import VARIABLE, budget
from sfumato_common.protocol.frames import Frame, read_frame, write_frame
from sfumato_common.supervise import Child
from sfumato_common.types import AnyArray, Arrays

Deliver = Callable[[bytes], bool]


def _refuse(data: bytes) -> bool:
    del data
    return False


class Workers:
    """A pool of them; `ask` may be called from as many threads as there are, and waits for a free one."""

    def __init__(self, folder: Path, number: int) -> None:
        self.seconds, self.megabytes = 0.0, 0
        self._lock = threading.Lock()
        self._start = partial(_start, folder, number)
        self._all = [self._start(index) for index in range(number)]
        self._free: queue.Queue[int] = queue.Queue()
        for index in range(number):
            self._free.put(index)

    @property
    def number(self) -> int:
        """How many."""
        return len(self._all)

    def ask(self, header: Mapping[str, Any], arrays: Arrays, deliver: Deliver = _refuse) -> Frame:
        """One question; `deliver` is told of a package, and says whether it was taken.

        Raises DataError with what the site's half said was wrong, and FederationError when the worker died: another
        takes its place.
        """
        index = self._free.get()
        try:
            said, found = _converse(self._all[index], header, arrays, deliver)
        except FederationError:
            self._all[index].stop()
            self._all[index] = self._start(index)
            raise
        finally:
            self._free.put(index)
        with self._lock:
            self.seconds += said["usage"]["seconds"]
            self.megabytes = max(self.megabytes, said["usage"]["megabytes"])
        if "error" in said:
            raise DataError(said["error"])
        return said, found

    def stop(self) -> None:
        """End all of them."""
        for child in self._all:
            child.stop()


@contextmanager
def started(folder: Path, number: int) -> Iterator[Workers]:
    """`number` workers, whose home and logs are below `folder`; none is left afterwards."""
    workers = Workers(folder, number)
    try:
        yield workers
    finally:
        workers.stop()


def _start(folder: Path, number: int, index: int) -> Child:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
        VARIABLE: str(max(1, budget() // (1 + number))),
    }
    command = [sys.executable, "-P", "-m", "sfumato_client.site.simulation"]
    return Child(f"worker {index}", command, environment, folder / "logs" / f"worker-{index}.log", piped=True)


def _converse(child: Child, header: Mapping[str, Any], arrays: Arrays, deliver: Deliver) -> Frame:
    try:
        write_frame(child.to_child, header, arrays)
        while (frame := read_frame(child.from_child)) is not None:
            if "deliver" not in frame[0]:
                return frame
            package: AnyArray = frame[1]["package"]
            write_frame(child.to_child, {"refused": not deliver(package.tobytes())}, {})
    except OSError:
        pass  # it is gone, as where it answers nothing more
    raise FederationError(f"a worker of the simulation died; '{child.log.name}' in 'logs' says why")

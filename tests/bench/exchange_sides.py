"""What `federation.py` measures of each framework alike: lines that count bytes, processes, and the run of one turn."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_common.supervise import descendants

SITES = ("alder", "birch", "cedar")
_CHUNK = 1 << 16
_LOOK_S = 0.05


@dataclass
class Turn:
    """One start of a framework and its exchanges; the first of them belongs to the start-up.

    `start_s` is from nothing to the end of the first exchange; bytes and processor seconds are a site's, an exchange.
    """

    start_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    processor_s: float = 0.0
    down: float = 0.0
    up: float = 0.0
    processes: int = 0


class Line:
    """Passes connections on to a port of this machine, and counts what passes: `down` is towards who connects."""

    def __init__(self, target: int) -> None:
        self._target, self.down, self.up = target, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for source, sink, down in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._carry, args=(source, sink, down), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if down:
                    self.down += len(data)
                else:
                    self.up += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def lines(target: int) -> Iterator[dict[str, Line]]:
    """A line a site to one port."""
    found = {site: Line(target) for site in SITES}
    try:
        yield found
    finally:
        for line in found.values():
            line.close()


def processor_seconds(pids: Sequence[int]) -> float:
    """What these processes and all below them used so far, those that ended and were waited for included."""
    ticks = 0
    for pid in [member for root in pids for member in (root, *descendants(root))]:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


class Meter:
    """What the sites used and what passed between two looks."""

    def __init__(self, pids: Sequence[int], carried: Mapping[str, Line]) -> None:
        self._pids, self._lines = list(pids), list(carried.values())
        self._before = self._now()

    def _now(self) -> tuple[float, int, int]:
        down, up = (sum(getattr(line, way) for line in self._lines) for way in ("down", "up"))
        return processor_seconds(self._pids), down, up

    def fill(self, turn: Turn, exchanges: int) -> None:
        """Put a site's mean of an exchange into `turn`."""
        shares = exchanges * len(self._pids)
        used, down, up = (after - before for after, before in zip(self._now(), self._before, strict=True))
        turn.processor_s, turn.down, turn.up = used / shares, down / shares, up / shares
        turn.processes = sum(1 + len(descendants(pid)) for pid in self._pids) // len(self._pids)


def follow(file: Path, turn: Turn, began: float, meter: Callable[[], Meter], exchanges: int, limit_s: float) -> None:
    """Fill `turn` from a file to which the framework's own server writes the seconds of each exchange, a line each."""
    measured: Meter | None = None
    while True:
        lines_read = file.read_text().splitlines() if file.exists() else []
        if lines_read and measured is None:
            turn.start_s, measured = time.monotonic() - began, meter()
        if measured is not None and len(lines_read) >= exchanges + 1:
            measured.fill(turn, exchanges)
            turn.seconds = [float(line) for line in lines_read[1 : exchanges + 1]]
            return
        if time.monotonic() - began > limit_s:
            raise TimeoutError(f"{len(lines_read)} of {exchanges + 1} exchanges ended in {limit_s:.0f} s")
        time.sleep(_LOOK_S)

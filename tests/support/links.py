"""A bad line between two ports of this machine: slow, late, cut for a while, or broken after so many bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_CHUNK = 1400


class Link:
    """Passes connections on to `target` (host, port), each way at `rate` bytes a second and `delay_s` late.

    `cut` holds everything back, as a line does that says nothing, or tells of ends, as a firewall does that `resets`;
    `mend` ends that. With `break_after` the first connection that brought so many bytes is reset, once.
    """

    def __init__(self, target: tuple[str, int], rate: float = 1e9, delay_s: float = 0.0) -> None:
        self._target, self._rate, self._delay_s = target, rate, delay_s
        self._open, self._ended = threading.Event(), False
        self._open.set()
        self._resets = True
        self.break_after: int | None = None
        self.broken = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self, resets: bool = False) -> None:
        self._resets = resets
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._ended = True
        self._open.set()
        self._listener.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, work, *given) -> None:
        threading.Thread(target=work, args=given, daemon=True).start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, 10)
            except OSError:
                near.close()
                continue
            self._start(self._carry, near, far, True)
            self._start(self._carry, far, near, False)

    def _carry(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        """One direction of one connection; its bytes leave one after another, at the line's rate."""
        free, brought = time.monotonic(), 0
        try:
            while data := source.recv(_CHUNK):
                self._open.wait()
                brought += len(data)
                if upwards and self.break_after is not None and brought >= self.break_after:
                    self.break_after, self.broken = None, self.broken + 1
                    break
                free = max(free, time.monotonic()) + len(data) / self._rate
                time.sleep(max(free - time.monotonic(), 0.0) + (self._delay_s if brought == len(data) else 0.0))
                sink.sendall(data)
        except OSError:
            pass
        if not self._resets:
            self._open.wait()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

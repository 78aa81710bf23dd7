"""Every hook into pynetdicom's insides: objects go to disk as they come, and neither size, silence nor time is endless.

pynetdicom gathers an object in memory, or, when told to (STORE_RECV_CHUNKED_DATASET), in a temporary file of a place
that it chooses itself; it waits for ever for the rest of a PDU, whose length the peer says and may be 4 GiB. Tied to
the pinned version; tests in tests/client/test_pacs_dimse.py fail where one of these hooks holds nothing any more.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynetdicom
from pynetdicom import dimse_messages, transport
from pynetdicom.association import Association

from sfumato_common.errors import NoRoomError
from sfumato_common.files import room_errors

# what a peer is told to send at most at once, and what is read of it at most
PDU_BYTES = 128 * 1024
_LARGEST_PDU = 1024**2
_PIECE = 64 * 1024
_SETTLE_S = 5.0


class Spool:
    """One object as it comes: a file as pynetdicom uses one. It never raises: that would end pynetdicom's thread.

    A full disk (`full`) is answered when all has come; of what is too large or too slow (`spent`) nothing more is read.
    """

    def __init__(self, folder: Path | None, largest: int, seconds: float) -> None:
        self.full, self.spent = False, folder is None
        self._left, self._until = largest, time.monotonic() + seconds
        self._descriptor, self.name = -1, ""
        if folder is not None:
            try:
                with room_errors():
                    self._descriptor, self.name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
            except NoRoomError:
                self.full = True

    @property
    def file(self) -> Spool:
        """What pynetdicom flushes."""
        return self

    def write(self, data: bytes) -> None:
        """Write a piece, as long as there is room and the object keeps to its bounds."""
        self._left -= len(data)
        if self._left < 0 or time.monotonic() > self._until:
            self.spent = True
            self.discard()
        if self.full or self.spent:
            return
        try:
            with room_errors():
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except NoRoomError:
            self.full = True

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Close and remove it."""
        self.close()
        if self.name:
            Path(self.name).unlink(missing_ok=True)


@contextmanager
def spooled(
    folder: Path | None,
    largest: int,
    idle_s: float,
    object_s: float,
    spent: Callable[[str], None] = lambda instance: None,
) -> Iterator[None]:
    """While the block runs all associations of this process write what comes into `folder`, within these bounds.

    An object that goes beyond them ends its association; `spent` is told its SOP Instance UID. Without a folder, as for
    queries, every object does.
    """

    def make(**_: Any) -> Spool:
        return Spool(folder, largest, object_s)

    def receive(self: transport.AssociationSocket, nr_bytes: int) -> bytearray:
        message = self.assoc.dimse.message
        spool = getattr(message, "_data_set_file", None)
        if isinstance(spool, Spool) and spool.spent:
            spent(str(getattr(message, "command_set", {}).get("AffectedSOPInstanceUID", "")))
            raise OSError("the object goes beyond its bounds")
        return _receive(self.socket, nr_bytes, idle_s, object_s)

    hooks: list[tuple[Any, str, Any]] = [
        (pynetdicom._config, "STORE_RECV_CHUNKED_DATASET", True),
        (pynetdicom._config, "LOG_HANDLER_LEVEL", "none"),
        (dimse_messages, "NamedTemporaryFile", make),
        (transport.AssociationSocket, "recv", receive),
    ]
    before = [getattr(place, name) for place, name, _ in hooks]
    for place, name, hook in hooks:
        setattr(place, name, hook)
    try:
        yield
    finally:
        for (place, name, _), old in zip(hooks, before, strict=True):
            setattr(place, name, old)


def await_reactor(association: Association) -> None:
    """Wait until an association's own thread has taken up its work again after the last request.

    pynetdicom pauses that thread for a request and reads `_is_paused` to see that it sleeps. Right after another
    request the word is still the old one: the thread then wakes, takes the first answer off the queue and drops it,
    and an answer to a query is missing without a trace (seen in one of 700 queries).
    """
    until = time.monotonic() + _SETTLE_S
    while association._is_paused and association.is_established and time.monotonic() < until:
        time.sleep(0.0005)


def _receive(connection: Any, count: int, idle_s: float, seconds: float) -> bytearray:
    """`count` bytes, fewer where the connection ends. Raises OSError for too many, too long a silence, or too late."""
    if count > _LARGEST_PDU:
        raise OSError("the peer announces more than was agreed")
    got, until = bytearray(), time.monotonic() + seconds
    connection.settimeout(idle_s)
    # else each question and answer of a few bytes waits 40 ms for an acknowledgement
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    while len(got) < count:
        piece = connection.recv(min(_PIECE, count - len(got)))
        if not piece:
            break
        got += piece
        if time.monotonic() > until:
            raise TimeoutError("the peer is too slow")
    return got

"""The coordinator's one port: it reads what a TLS client would speak, and passes the connection on to who speaks it.

A client names its protocols in its first message, the ClientHello (RFC 8446, section 4.1.2; ALPN: RFC 7301). HTTP/2 is
the intake's, all else the front's; both are on loopback and do the handshake themselves, so that TLS ends there, with
the certificate of the site, and nothing passes here in clear.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from typing import Any

from sfumato_server.coordinator.listener import Listener

LARGEST_HELLO = 16 * 1024
HELLO_SECONDS, READ_SECONDS = 10.0, 300.0
_OTHERS = 256  # files that the process has open beside
_HANDSHAKE_RECORD, _CLIENT_HELLO, _ALPN = 22, 1, 16
_CHUNK = 64 * 1024
CONNECTIONS = 512
_FILES = 4  # of a connection: here its two ends, behind another, and one towards the SuperLink


@dataclass(frozen=True)
class Behind:
    """Ports of loopback: who speaks HTTP/2, and who speaks all else."""

    intake: int
    front: int


class Door(Listener):
    """Opens and closes the port; at most `most` connections are open at a time."""

    def __init__(self, address: tuple[str, int], behind: Behind, most: int = CONNECTIONS) -> None:
        super().__init__(address, "door")
        self.behind, self._most, self._open = behind, most, 0

    async def _listen(self, **terms: Any) -> None:
        _allow_files(_FILES * self._most)
        await super()._listen(**terms)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its end; nothing that happens in it ends the door."""
        self._open += 1
        try:
            if self._open <= self._most:
                async with asyncio.timeout(HELLO_SECONDS):
                    hello = await read_hello(reader)
                await self._carry(hello, reader, writer)
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.CancelledError):
            pass  # gone, too slow, no TLS, or the door closes
        finally:
            self._open -= 1
            writer.close()

    async def _carry(self, hello: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self.behind.intake if b"h2" in protocols(hello) else self.behind.front
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        far_writer.write(hello)
        asked = asyncio.create_task(_pump(reader, far_writer))
        try:
            await _pump(far_reader, writer)  # whoever is behind ends a connection that asks nothing
        finally:
            asked.cancel()
            far_writer.close()


def _allow_files(count: int) -> None:
    """Let this process hold so many more open files, where the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, _OTHERS + count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


async def read_hello(reader: asyncio.StreamReader) -> bytes:
    """The first TLS record, as it came. Raises ValueError for another, or a larger one than any client sends."""
    head = await reader.readexactly(5)
    length = int.from_bytes(head[3:5])
    if head[0] != _HANDSHAKE_RECORD or head[1] != 3 or not 0 < length <= LARGEST_HELLO:
        raise ValueError("no TLS")
    return head + await reader.readexactly(length)


def protocols(record: bytes) -> tuple[bytes, ...]:
    """What ALPN offers in a record that holds a whole ClientHello; nothing where it offers nothing.

    Raises ValueError where the record is no ClientHello, or ends within one.
    """
    rest = _Fields(record[5:])
    if rest.number(1) != _CLIENT_HELLO:
        raise ValueError("no ClientHello")
    hello = _Fields(rest.field(3))
    hello.take(2 + 32)  # version and random
    hello.field(1)  # session
    hello.field(2)  # cipher suites
    hello.field(1)  # compression
    extensions = _Fields(hello.field(2) if hello.left else b"")
    while extensions.left:
        kind, value = extensions.number(2), _Fields(extensions.field(2))
        if kind == _ALPN:
            names, found = _Fields(value.field(2)), []
            while names.left:
                found.append(names.field(1))
            return tuple(found)
    return ()


class _Fields:
    """Bytes that are taken from the front: numbers, and fields behind their length. Raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise ValueError("ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        """A big-endian number of `size` bytes."""
        return int.from_bytes(self.take(size))

    def field(self, size: int) -> bytes:
        """A field behind its length of `size` bytes."""
        return self.take(self.number(size))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction until it ends, then tell the other side so; one that reads nothing is left alone."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            async with asyncio.timeout(READ_SECONDS):
                await writer.drain()
        writer.write_eof()
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass  # reset by either end

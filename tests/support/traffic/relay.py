"""A TLS-terminating relay between sites and coordinator that keeps every byte it carries, in clear, by site and port.

It shows the federation's own server certificate, so that the sites' certificate checks stay on; towards the intake it
goes on with the site's own client certificate, so that the coordinator's checks stay on as well. It touches nothing:
TLS ends here and begins anew, and what lies between (HTTP/1.1 or HTTP/2, by ALPN) is passed on as it came.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Port:
    """One port of the relay: whose it is, which port of the coordinator stands behind it, and how TLS is spoken.

    `names` are what ALPN (RFC 7301) may choose, and what a connection that chose it is called; `client` is
    (certificate, key), files of the site that may not exist before the first connection: with it the relay asks for
    that certificate and shows it to the coordinator.
    """

    site: str
    upstream: int
    names: Mapping[str, str]
    client: tuple[Path, Path] | None = None


@dataclass
class Connection:
    """One connection in clear: `sent` is what the site wrote, `received` what it read; `peer` its certificate, DER."""

    site: str
    port: str
    alpn: str | None
    peer: bytes
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


class Relay:
    """Ports on loopback, served by one thread. `connections` grows as they come; `problems` holds what went wrong.

    A test that means to have seen everything asserts that `problems` is empty: a client that spoke no TLS, or broke off
    its handshake, is there and nowhere else.
    """

    def __init__(self, authority: Path, certificate: Path, key: Path) -> None:
        self._authority, self._certificate, self._key = authority, certificate, key
        self.connections: list[Connection] = []
        self.problems: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(15)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(15)
        self._loop.close()

    def open(self, port: Port) -> int:
        """Begin to listen for one site; returns the port."""
        return asyncio.run_coroutine_threadsafe(self._open(port), self._loop).result(15)

    def of(self, site: str, port: str | None = None) -> list[Connection]:
        """Connections of one site so far, in the order of their handshakes."""
        return [item for item in list(self.connections) if item.site == site and port in (None, item.port)]

    async def _open(self, port: Port) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, self._key)
        context.set_alpn_protocols(list(port.names))
        if port.client is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._authority)
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        listener.setblocking(False)
        self._listeners.append(listener)
        self._spawn(self._accept(port, context, listener))
        return int(listener.getsockname()[1])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, port: Port, context: ssl.SSLContext, listener: socket.socket) -> None:
        while True:
            accepted, _ = await self._loop.sock_accept(listener)
            self._spawn(self._serve(port, context, accepted))

    async def _serve(self, port: Port, context: ssl.SSLContext, accepted: socket.socket) -> None:
        """One connection, from its handshake to its end."""
        # by hand: asyncio's own server keeps a failed handshake to itself
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, accepted, ssl=context)
        except OSError as error:  # ssl.SSLError is one
            self.problems.append(f"{port.site}: no handshake: {error}")
            accepted.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            await self._carry(port, reader, writer)
        finally:
            writer.close()

    async def _carry(self, port: Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoken = writer.get_extra_info("ssl_object")
        chosen = spoken.selected_alpn_protocol()
        name = port.names.get(chosen or "", "unknown")
        connection = Connection(port.site, name, chosen, spoken.getpeercert(binary_form=True) or b"")
        self.connections.append(connection)
        try:
            onward = self._onward(port, connection.alpn)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port.upstream, ssl=onward)
        except OSError:  # the coordinator is away, or does not want this site
            # what the site wants to say is kept although nobody hears it
            connection.sent += await self._rest(reader)
            return
        chosen = far_writer.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen not in (None, connection.alpn):
            self.problems.append(f"{port.site}/{name}: ALPN {connection.alpn} here, {chosen} there")
        await asyncio.gather(_pump(reader, far_writer, connection.sent), _pump(far_reader, writer, connection.received))

    def _onward(self, port: Port, alpn: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._authority)
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        if port.client is not None:
            context.load_cert_chain(*port.client)
        return context

    @staticmethod
    async def _rest(reader: asyncio.StreamReader) -> bytes:
        """What a client whose connection cannot be carried on says until it is silent for a moment."""
        heard = b""
        try:  # a head and its body may come apart
            while data := await asyncio.wait_for(reader.read(_CHUNK), 0.3):
                heard += data
        except (TimeoutError, OSError):
            pass
        return heard

    async def _close(self) -> None:
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
    """Carry one direction until it ends, recording before sending; then close the other side."""
    try:
        while data := await reader.read(_CHUNK):
            record += data
            writer.write(data)
            await writer.drain()
    except OSError:
        return  # reset by either end: what had come is recorded
    finally:
        writer.close()

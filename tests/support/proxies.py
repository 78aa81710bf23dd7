"""A hospital's HTTP proxy: CONNECT alone, and names that only it can find."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Where it listens, whom it finds (ports of this machine by host), and whom it was asked for, as HOST:PORT."""

    port: int
    known: Mapping[str, int]
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """As HTTPS_PROXY names it."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def proxy_at_work(known: Mapping[str, int]) -> Iterator[Proxy]:
    """A proxy on loopback, in a thread of its own."""
    loop, proxy = asyncio.new_event_loop(), Proxy(0, known)

    async def serve(reader, writer):
        try:
            line = await reader.readline()
            while (await reader.readline()).strip():
                pass
            method, target, _ = line.split()
            proxy.asked.append(target.decode())
            port = known.get(target.decode().rpartition(":")[0].strip("[]"))
            if method != b"CONNECT" or port is None:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(serve, "127.0.0.1", 0), loop).result(5)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _end(server):
    """Close the server, and what still goes through it."""
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()

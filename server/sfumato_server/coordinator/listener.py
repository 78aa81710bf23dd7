"""A port that one thread of its own serves with asyncio, from `start` to `stop`."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from typing import Any

from sfumato_common.supervise import require_free


class Listener(ABC):
    """Opens and closes the port at `address`; a subclass serves a connection, in a thread called `name`."""

    def __init__(self, address: tuple[str, int], name: str) -> None:
        self.address = address
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def require_free(self) -> None:
        """Raise BusyError when the port is taken."""
        require_free(*self.address)

    def start(self) -> None:
        """Open the port. Raises BusyError when it is taken."""
        self.require_free()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10.0)

    def stop(self) -> None:
        """Close the port and every connection. Harmless when not started."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10.0)
        self._loop.close()

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end; nothing that happens in it ends the port."""

    async def _listen(self, **terms: Any) -> None:
        """Open the port on the loop; `terms` are more of `asyncio.start_server`."""
        self._server = await asyncio.start_server(self._serve, *self.address, backlog=256, **terms)

    async def _close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

"""HTTP answers that cannot be endless: a session whose every body has a largest size and a last moment.

`requests` bounds the silence between two pieces alone: a server that drips would hold a transfer for ever, and one
that never ends would fill the memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter

_PIECE = 64 * 1024


class TooMuchError(Exception):
    """An answer is larger than it may be."""


class TooLongError(Exception):
    """An answer took longer than it may."""


class _Body:
    """What `requests` reads a body from (`raw` of a response): every piece is counted, and looked at with the clock.

    Pieces are what one read of the socket gives (`read1`): a read of a fixed size would wait for all of it.
    """

    def __init__(self, raw: Any, largest: int, until: float) -> None:
        self._raw, self._left, self._until = raw, largest, until

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amount: int = _PIECE, decode_content: bool | None = None) -> Iterator[bytes]:
        """Pieces of at most `amount` bytes until the body ends. Raises TooMuchError and TooLongError."""
        while True:
            if time.monotonic() > self._until:
                raise TooLongError
            piece = self._raw.read1(amount, decode_content=decode_content)
            if not piece:
                if self._raw.length_remaining:
                    raise requests.exceptions.ConnectionError("the body ended before its length")
                return
            self._left -= len(piece)
            if self._left < 0:
                raise TooMuchError
            yield piece


class BoundedAdapter(HTTPAdapter):
    """Sends requests whose answers have at most `largest` bytes and `seconds` from the first to the last."""

    def __init__(self, largest: int, seconds: float) -> None:
        super().__init__()
        self._largest, self._seconds = largest, seconds

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """As `HTTPAdapter.send`; the body is read piece by piece in any case. Only GET is ever sent."""
        assert request.method == "GET", "nothing is written to a PACS"
        response = super().send(request, True, timeout, verify, cert, dict(proxies or {}))
        response.raw = _Body(response.raw, self._largest, time.monotonic() + self._seconds)
        return response

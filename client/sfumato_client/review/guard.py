"""Who may speak to the stewards' page: whoever has the address of this start, from a page of its own.

The token stands in the path and not in a cookie: cookies of 127.0.0.1 go to every port of it, also to a server of
another user of the machine. A name other than a loopback one is refused (DNS rebinding), and so is a form that was sent
from another page (cross-site request forgery). Every decision also needs its steward's passphrase.
"""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LARGEST_FORM = 64 * 1024
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Lets requests of one token and of loopback names through to `app`, and gives every answer its headers.

    `port` is the page's own. What is refused learns nothing: not whether the token or the name was wrong.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def closed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        allowed = scope["type"] == "http" and self._may(Request(scope))
        await (self._app if allowed else PlainTextResponse("not here\n", 404))(scope, receive, closed)

    def _may(self, request: Request) -> bool:
        host, token = request.headers.get("host", ""), request.url.path.split("/")[1:2]
        if host not in self._hosts or not hmac.compare_digest("".join(token).encode(), self._token):
            return False
        if request.method in ("GET", "HEAD"):
            return True
        length = request.headers.get("content-length", "")
        return (
            request.method == "POST"
            and request.headers.get("origin") == f"http://{host}"
            and request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
            and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
            and length.isdecimal()
            and int(length) <= LARGEST_FORM
        )

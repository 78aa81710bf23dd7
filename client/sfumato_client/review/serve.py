"""The stewards' page as a process: on 127.0.0.1 alone, under a token of this start, until Ctrl-C."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import uvicorn

from sfumato_client.review.app import make_app
from sfumato_client.site.home import SiteHome
from sfumato_common.errors import BusyError
from sfumato_common.supervise import require_free

LOOPBACK = "127.0.0.1"
_MOST_AT_ONCE = 32


def serve(root: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; `tell` is given the address with its token, once the port is open.

    Raises ConfigError where the home has no policy, BusyError where the port is taken.
    """
    SiteHome(root).own_policy()
    if port:
        require_free(LOOPBACK, port)
    token = secrets.token_urlsafe(32)
    config = uvicorn.Config(
        "", host=LOOPBACK, port=port, log_level=logging.WARNING, access_log=False, server_header=False, lifespan="off",
        date_header=False, limit_concurrency=_MOST_AT_ONCE, timeout_keep_alive=5, timeout_graceful_shutdown=2,
        proxy_headers=False,
    )  # fmt: skip
    try:
        socket = config.bind_socket()
    except SystemExit:  # how uvicorn says that the port is taken
        raise BusyError(f"port {port} of this machine is taken; choose another by --port") from None
    with socket:
        socket.listen(_MOST_AT_ONCE)  # before the address is told: a browser may be quick
        found = int(socket.getsockname()[1])
        config.app = make_app(root, token, found)
        tell(f"http://{LOOPBACK}:{found}/{token}/")
        uvicorn.Server(config).run([socket])

"""The coordinator's page over HTTP, for its own machine: the live page, its sheets, and `/metrics` for Prometheus.

On loopback alone, without a login, and only where it is asked for: whoever has an account on the machine can read it.
It answers GET for a few fixed names. The name in a request must be a loopback one, so that no page of another site that
a browser shows can be led here (DNS rebinding).
"""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sfumato_common.supervise import require_free
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.status.live import page_text
from sfumato_server.status.metrics import CONTENT_TYPE, metrics_text
from sfumato_server.status.overview import overview
from sfumato_server.status.sheets import FOLDER

LOOPBACK = "127.0.0.1"
_SHEET = re.compile(rf"/{FOLDER}/([a-z0-9-]{{1,64}}\.png)")
_HOSTS = {LOOPBACK, "localhost", "[::1]"}


class PageServer:
    """Opens and closes the page's port; harmless to close when it is not open."""

    def __init__(self, home: CoordinatorHome, port: int) -> None:
        require_free(LOOPBACK, port)
        root, plan = home.root, home.plan

        class Handler(BaseHTTPRequestHandler):
            """One request; what is asked for beyond the few names is not there."""

            server_version, sys_version = "sfumato", ""
            timeout = 10.0

            def do_GET(self) -> None:
                host = (self.headers.get("host") or "").rpartition(":")[0] or self.headers.get("host")
                if host not in _HOSTS:
                    self._answer(403, "text/plain", b"ask by a loopback name\n")
                elif self.path in ("/", "/live.html"):
                    self._answer(200, "text/html; charset=utf-8", page_text(root, plan()).encode())
                elif self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE, metrics_text(overview(root, plan())))
                elif (sheet := _SHEET.fullmatch(self.path)) and (root / FOLDER / sheet[1]).is_file():
                    self._answer(200, "image/png", (root / FOLDER / sheet[1]).read_bytes())
                else:
                    self._answer(404, "text/plain", b"not here\n")

            def _answer(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                headers = {"content-type": kind, "content-length": str(len(content)), "cache-control": "no-store"}
                for name, value in {**headers, "x-content-type-options": "nosniff"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are not logged: a scraper asks every few seconds."""

        self._server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)

    def __enter__(self) -> PageServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10.0)

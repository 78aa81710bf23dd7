"""What `sfumato-site run` shows while it runs: `status`, live on a terminal, and elsewhere a line for every change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.text import Text

from sfumato_client.cli.status import render
from sfumato_client.egress.progress import CONTACT_FILE
from sfumato_client.site.home import SiteHome
from sfumato_common.command_line import console
from sfumato_common.errors import SfumatoError
from sfumato_common.logs import log_form
from sfumato_common.progress import Lines, say_dated, ticking

log = logging.getLogger(__name__)
_LOOK_SECONDS = 5.0
_BEAT_SECONDS, _WORK_BEAT_SECONDS = 600.0, 60.0


class Look:
    """The site's `overview`, made anew where a file of the home has changed, and at times, since it costs some work."""

    def __init__(self, root: Path, study: str) -> None:
        self._root, self._study, home = root, study, SiteHome(root, study)
        self._files = [home.node_file, home.link / CONTACT_FILE, home.work_file, home.ledger_file, home.plans]
        self._seen: list[float] = []
        self._view: Mapping[str, Any] = {}
        self._made = 0.0

    def __call__(self) -> Mapping[str, Any]:
        """The view with its clock at now. Raises SfumatoError where the home cannot be looked at."""
        from sfumato_client.site.overview import overview

        seen = [_changed(path) for path in self._files]
        if seen != self._seen or time.monotonic() - self._made > _LOOK_SECONDS:
            self._view, self._seen, self._made = overview(self._root, self._study), seen, time.monotonic()
        return {**self._view, "now": time.time()}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def live_site(root: Path, study: str = "") -> Iterator[None]:
    """Show how the site stands while the body runs, and once more when it has ended.

    A look that fails is told, and never ends the site: a thread of its own looks.
    """
    read = Look(root, study)
    _say(f"connecting to coordinator {SiteHome(root, study).coordinator_address()}")
    screen = _screen() if console.is_terminal and log_form() == "text" else nullcontext(_speaker())
    with screen as show, ticking(partial(_show, read, show), "console"):
        yield


Show = Callable[[Mapping[str, Any] | str], None]


def _show(read: Look, show: Show) -> None:
    try:
        show(read())
    except SfumatoError as error:
        show(f"the site's files cannot be looked at: {error}")
    except Exception as error:  # for the eye: it costs no study
        log.debug("a look at the site failed", exc_info=error)
        show(f"the site's files cannot be looked at ({type(error).__name__}); the site goes on")


@contextmanager
def _screen() -> Iterator[Show]:
    with Live(Text("starting"), console=console, auto_refresh=False) as live:
        yield lambda seen: live.update(Text(seen) if isinstance(seen, str) else render(seen), refresh=True)


def _speaker() -> Show:
    lines = Lines(_say, _BEAT_SECONDS)

    def show(seen: Mapping[str, Any] | str) -> None:
        from sfumato_client.site.telling import beat_line, told, working_line

        if isinstance(seen, str):
            lines.tell({"look": seen}, lambda: seen)
            return
        lines.tell(told(seen), lambda: beat_line(seen), _WORK_BEAT_SECONDS if working_line(seen) else None)

    return show


def _say(line: str) -> None:
    with suppress(OSError):  # whoever read it is gone: the site goes on
        say_dated(line, log)

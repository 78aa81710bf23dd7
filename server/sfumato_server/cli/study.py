"""`sfumato study`: how a study stands, from any terminal of the coordinator's machine."""

from __future__ import annotations

from functools import partial

import typer

from sfumato_common.command_line import AsJson, Once, show_status
from sfumato_server.cli.home import Home

study_app = typer.Typer(no_args_is_help=True, help="Watch a study.")


@study_app.callback()
def study() -> None:
    """A group also while it has one command."""


@study_app.command("status", epilog="Example: sfumato study status --home coord --once")
def status(home: Home, once: Once = False, as_json: AsJson = False) -> None:
    """Show stages, sites, epsilon, bytes, time left and what to do next; live, or once, also when nothing runs."""
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.status.overview import overview
    from sfumato_server.status.view import render

    show_status(partial(overview, home, CoordinatorHome(home).plan()), render, once, as_json)

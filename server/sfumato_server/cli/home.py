"""The option that names the coordinator's home."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from sfumato_common.command_line import keep_epsilons
from sfumato_common.homes import known_home


def keep_costs() -> None:
    """Until this command ends, keep what plans cost in the user's own cache folder (XDG_CACHE_HOME); see `kept.py`."""
    with suppress(RuntimeError):  # nobody's home: nothing is kept
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        keep_epsilons(Path(caches) / "sfumato" / "epsilons")


def coordinator_home(context: typer.Context, home: Path) -> Path:
    """Callback of `--home`. Raises ConfigError where there is none, or a site's."""
    return known_home(context, home, ("init", "restore"), "identity", "a site's")


Home = Annotated[
    Path,
    typer.Option(
        "--home", help="The coordinator's home.", envvar="SFUMATO_COORDINATOR_HOME", callback=coordinator_home
    ),
]

"""The option that names the coordinator's home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato_common.command_line import close_home

Home = Annotated[
    Path,
    typer.Option("--home", help="The coordinator's home.", envvar="SFUMATO_COORDINATOR_HOME", callback=close_home),
]

"""The options that name the site's home, and which of its coordinators is meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from sfumato_common.errors import ConfigError
from sfumato_common.homes import known_home

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def _check_name(name: str) -> str:
    if name and not _NAME.fullmatch(name):
        raise ConfigError(f"--study '{name}': write a short word of small letters, digits and '-', as a study's name")
    return name


def site_home(context: typer.Context, home: Path) -> Path:
    """Callback of `--home`. Raises ConfigError where there is none, or a coordinator's."""
    return known_home(context, home, ("init", "restore"), "authority", "a coordinator's")


Home = Annotated[
    Path, typer.Option("--home", help="The site's home folder.", envvar="SFUMATO_SITE_HOME", callback=site_home)
]
Study = Annotated[
    str,
    typer.Option("--study", help="Your own word for one more coordinator, beside the first.", callback=_check_name),
]
StoreKey = Annotated[
    Path | None,
    typer.Option("--store-key", help="File with the key of the store, such as a mounted secret; else the home's own."),
]

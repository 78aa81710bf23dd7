"""The homes that commands are given by `--home`: closed to others, there, and of the right role."""

from __future__ import annotations

from pathlib import Path

import click

from sfumato_common.command_line import complaints
from sfumato_common.errors import ConfigError
from sfumato_common.files import close_folder
from sfumato_common.hints import remember_home


def close_home(home: Path | None) -> Path | None:
    """Callback of every option that names a home: it is closed to others before the command looks into it.

    Homes of earlier versions, and copies of a home, may stand open. Raises ConfigError where one cannot be closed.
    """
    if home is not None and home.is_dir() and close_folder(home):
        complaints.print(
            f"'{home.resolve().name}' could be entered by others on this machine; it is closed now (mode 0700)",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    return home


def known_home(context: click.Context, home: Path, makers: tuple[str, ...], foreign: str, whose: str) -> Path:
    """What callbacks of `--home` give: the home, closed; commands but `makers` look into one that is there.

    Raises ConfigError for a folder that is not there, and for a home of the other role, which has `foreign` in it.
    """
    if context.resilient_parsing:  # a shell completes the line
        return home
    remember_home(context, home)
    if (home / foreign).is_dir():
        raise ConfigError(f"'{home}' is {whose} home; name another folder by --home")
    if not home.exists() and context.command.name not in makers:
        raise ConfigError(
            f"there is no folder '{home}' (paths count from '{Path.cwd()}'); check --home, or make one by '{makers[0]}'"
        )
    close_home(home)
    return home

"""The order of the commands in `sfumato-site --help`: that in which a hospital needs them, under a heading each."""

from __future__ import annotations

import typer
from typer.models import CommandInfo, TyperInfo

PANELS = {
    "First": ("policy", "source", "init", "fingerprint", "join", "check", "ingest", "accept", "run", "status"),
    "Releases": ("review", "queue", "approve", "refuse", "steward", "gate"),
    "The account": ("ledger", "dossier"),
    "Life cycle": (
        *("withdraw", "leave", "unaccept", "certificates", "renew", "backup", "restore"),
        *("erase-store", "remove"),
    ),
    "For some": ("pacs", "tabular", "pseudonym", "style-net", "schema"),
}


def arrange(app: typer.Typer) -> None:
    """Give every command and group of `app` its heading, and put them into that order; one without is a KeyError."""
    places = {name: (at, heading) for at, (heading, name) in enumerate(_named())}
    infos: list[CommandInfo | TyperInfo] = [*app.registered_commands, *app.registered_groups]
    for info in infos:
        info.rich_help_panel = places[_name(info)][1]
    app.registered_commands.sort(key=lambda info: places[_name(info)][0])
    app.registered_groups.sort(key=lambda info: places[_name(info)][0])


def _named() -> list[tuple[str, str]]:
    return [(heading, name) for heading, names in PANELS.items() for name in names]


def _name(info: CommandInfo | TyperInfo) -> str:
    named = info.name or (info.callback.__name__ if info.callback else "")
    return str(named).replace("_", "-")

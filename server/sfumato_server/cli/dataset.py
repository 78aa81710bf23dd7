"""`sfumato dataset`: the tools for a published data set, for whoever downloads it; they need no home and no network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sfumato_common.command_line import AsJson, console, file_bytes, print_json
from sfumato_common.errors import ConfigError, UnverifiedOrigin
from sfumato_server.cli.evaluate import dataset_evaluate

dataset_app = typer.Typer(no_args_is_help=True, help="Work with a published data set.")
dataset_app.command(
    "evaluate", epilog="Example: sfumato dataset evaluate published --real index.csv --out evaluation.json"
)(dataset_evaluate)


@dataset_app.command(
    "verify",
    epilog="Example: sfumato dataset verify results/published --key coordinator.pem --site-key alder=alder.pem",
)
def dataset_verify(
    folder: Annotated[Path, typer.Argument(help="A published data set.")],
    key: Annotated[
        Path | None, typer.Option(help="The coordinator's public key, from a source that you trust.")
    ] = None,
    site_key: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: a hospital's public key, from the hospital (repeat).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check signatures and hashes offline. Without --key nobody vouches for the set: exit code 3."""
    from sfumato_server.publish import UNVERIFIED, verify_dataset

    report = verify_dataset(folder, file_bytes(key) if key else None, _site_keys(site_key or []))
    if as_json:
        print_json(asdict(report))
    else:
        console.print("\n".join([report.summary(), *report.key_lines()]), markup=False, soft_wrap=True)
    if not report.trusted:
        raise UnverifiedOrigin(
            f"{UNVERIFIED}: anybody can make a set that agrees with itself; pass the coordinator's public key, from a "
            "source that you trust, with --key"
        )


@dataset_app.command("overview", epilog="Example: sfumato dataset overview results/published --out overview.png")
def dataset_overview(
    folder: Annotated[Path, typer.Argument(help="A published data set.")],
    out: Annotated[Path, typer.Option(help="Where the picture goes, PNG.")],
) -> None:
    """Draw one picture of the set: a row per site and model."""
    from sfumato_server.publish import UNVERIFIED, write_overview

    shown = f"{write_overview(folder, out)} images shown in '{out.name}'"
    console.print(f"{shown}; {UNVERIFIED}: run 'sfumato dataset verify' with --key", markup=False, soft_wrap=True)


def _site_keys(given: list[str]) -> dict[str, bytes]:
    """Keys by site from NAME=FILE words. Raises ConfigError."""
    keys: dict[str, bytes] = {}
    for word in given:
        name, equals, file = word.partition("=")
        if not equals or name in keys:
            raise ConfigError("--site-key takes NAME=FILE, once for each hospital")
        keys[name] = file_bytes(Path(file))
    return keys

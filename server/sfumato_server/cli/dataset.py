"""`sfumato dataset`: the tools for a published data set, for whoever downloads it; they need no home and no network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sfumato_common.command_line import AsJson, console, file_bytes, print_json
from sfumato_common.errors import ConfigError, UnverifiedOrigin, VerificationError

dataset_app = typer.Typer(no_args_is_help=True, help="Work with a published data set.")


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
    status: Annotated[Path | None, typer.Option(help="The study's signed status file, as new as can be had.")] = None,
    seen: Annotated[Path | None, typer.Option(help="Remembers which status files were shown; else one a user.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check signatures and hashes offline. Without --key nobody vouches for the set: exit code 3."""
    from sfumato_server.publish import UNVERIFIED, verify_dataset
    from sfumato_server.publish.versions import standing_lines, standing_of

    report = verify_dataset(folder, file_bytes(key) if key else None, _site_keys(site_key or []))
    standing = standing_of(folder, status, key, seen) if status else None
    if as_json:
        print_json({**asdict(report), **({"version": standing.model_dump(mode="json")} if standing else {})})
    else:
        lines = [report.summary(), *report.key_lines(), *(standing_lines(standing) if standing else [])]
        console.print("\n".join(lines), markup=False, soft_wrap=True)
    if not report.trusted:
        raise UnverifiedOrigin(
            f"{UNVERIFIED}: anybody can make a set that agrees with itself; pass the coordinator's public key, from a "
            "source that you trust, with --key"
        )
    if standing is not None and standing.state == "withdrawn":
        raise VerificationError("this set was withdrawn by its consortium: do not use it")


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

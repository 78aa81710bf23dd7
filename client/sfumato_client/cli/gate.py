"""`sfumato-site gate`: a rehearsal of the gate; a real verdict is given once a plan, inside its release."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato_client.cli.home import Home, Study
from sfumato_common.command_line import AsJson, console, print_json, say
from sfumato_common.errors import ConfigError

DryRun = Annotated[bool, typer.Option("--dry-run", help="Judge phantom patients, as many as the store has.")]
Candidates = Annotated[int, typer.Option("--candidates", min=20, max=2000, help="Images of each set that is judged.")]


def gate(
    home: Home, dry_run: DryRun = False, candidates: Candidates = 100, study: Study = "", as_json: AsJson = False
) -> None:
    """Rehearse the gate on phantom patients: which rules would see a leak here; no image is read, nothing charged."""
    from rich.table import Table

    from sfumato_client.site.rehearsing import rehearse_here

    if not dry_run:
        raise ConfigError(
            "the gate judges a release by itself, once a plan; 'sfumato-site gate --dry-run' rehearses it on phantoms"
        )
    found = rehearse_here(home, study, candidates)
    if as_json:
        print_json(found.to_json())
        return
    table = Table(title="What the gate's rules refuse, of sets of phantom patients")
    sets = list(next(iter(found.refused.values()), {}))
    for heading in ("rule", *sets):
        table.add_column(heading)
    for rule, refused in found.refused.items():
        table.add_row(rule, *("refused" if refused[name] else "passes" for name in sets))
    console.print(table)
    said = [f"no verdict: {found.obstacle}"] if found.obstacle else []
    if found.drawn != (found.members, found.holdout):
        said.append(f"rehearsed with {found.drawn[0]} training and {found.drawn[1]} holdout phantoms")
    said.append(found.power)
    for line in said:
        say(line)

"""`sfumato-site dossier`: what this site can show of a study, and first what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato_client.cli.home import Home
from sfumato_common.command_line import say


def dossier(
    home: Home,
    study: Annotated[str, typer.Argument(help="The study's name, as its plan has it.")],
    out: Annotated[Path, typer.Option(help="Folder for dossier.html and dossier.json; it stays here.")] = Path(
        "dossier"
    ),
) -> None:
    """Fill an impact assessment and five frameworks from this site's ledger, policy and gate; not shown comes first."""
    from sfumato_client.site.dossier import site_facts
    from sfumato_client.site.home import SiteHome
    from sfumato_common.evidence.dossier import make_dossier
    from sfumato_common.evidence.page import write_dossier

    made = make_dossier(site_facts(SiteHome(home), study))
    write_dossier(made, out)
    say(made.summary(out))

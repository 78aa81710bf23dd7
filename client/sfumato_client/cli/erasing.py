"""`sfumato-site erase-store`: the site's images, made unreadable for good."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato_client.cli.home import Home
from sfumato_common.command_line import say
from sfumato_common.errors import PolicyRefusal


def erase_store(
    home: Home,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking.")] = False,
) -> None:
    """Erase the key of the site's store: nobody can read its images again; the ledger stays."""
    from sfumato_client.site.erasing import erase_store, nothing_runs
    from sfumato_client.site.home import SiteHome

    site = SiteHome(home)
    name = site.own_policy().site
    with nothing_runs(site):
        say(
            "this erases the key of the store, and with it all images, labels and pseudonyms that were ingested, on "
            "this disk and in every backup of the store that has no copy of the key; nothing brings them back"
        )
        with site.open_ledger() as ledger:
            begun = [plan.study for plan in ledger.begun()]
        if begun:
            say(
                f"under way here: {', '.join(begun)}. Until its release is approved no other images may be ingested "
                "than those that it was begun with; 'sfumato-site leave' ends it for this site"
            )
        if not yes and typer.prompt(f"Type the site's name, '{name}', to erase them", default="") != name:
            raise PolicyRefusal("not erased: the name was not typed; everything is as it was")
        left = erase_store(site)
    say(
        "erased: the store cannot be read any more. The ledger keeps what patients have paid and, by pseudonym, in "
        "which cohort: whoever is ingested again goes on from there. Copies of the key are yours to erase, too"
    )
    if left:
        say(f"not encrypted, and still here: {', '.join(left)}; remove what holds images that are to go")

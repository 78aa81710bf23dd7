"""`sfumato-site pseudonym`: the random name by which studies know a site whose policy does not show its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sfumato_client.cli.home import Home, Study
from sfumato_common.command_line import say

if TYPE_CHECKING:
    from sfumato_client.site.home import SiteHome


def pseudonym(
    home: Home,
    study: Study = "",
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Draw another one, for later studies, when those that know it are left.")
    ] = False,
) -> None:
    """Draw the name and keys by which studies are to know this site, and write the request that enrols them."""
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.names import draw_pseudonym

    site = SiteHome(home, study)
    draw_pseudonym(site, rotate)
    tell_request(site)


def tell_request(home: SiteHome) -> None:
    """Write the enrolment request of what studies are to know of this site, and say what to do with it."""
    from sfumato_client.site.names import write_request
    from sfumato_common.crypto.identity import load_identity
    from sfumato_common.crypto.signatures import fingerprint

    request, identity, own = write_request(home), load_identity(home.keys), home.own_policy().site
    if identity.site != own:
        say(
            f"studies are to know site '{own}' by '{identity.site}': ask for a plan that names it so. The request says "
            "whose name that is, and is for the coordinator alone"
        )
    say(
        f"site '{identity.site}' is ready; give '{request.name}' to the coordinator, and tell its fingerprint by "
        f"another way, by telephone for example:\n{fingerprint(identity.signing_public)}"
    )

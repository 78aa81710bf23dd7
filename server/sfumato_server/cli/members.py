"""`sfumato coordinator list | revoke | renew | rotate`: who belongs to the federation, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sfumato_common.command_line import AsJson, console, print_json, say
from sfumato_common.crypto.certificates import validity
from sfumato_common.crypto.enrolment import encode_grant
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic
from sfumato_common.locks import exclusive
from sfumato_server.cli.home import Home
from sfumato_server.cli.moving import backup, restore
from sfumato_server.cli.passphrase import PassphraseFile, ask_passphrase

Site = Annotated[str, typer.Argument(help="The site's name.")]


def list_members(home: Home, as_json: AsJson = False) -> None:
    """Show the plan's sites and this coordinator: standing, fingerprints, and when certificates end."""
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.enrol import Registry, load_authority

    authority, records = load_authority(home), Registry(home).sites()
    rows: dict[str, dict[str, Any]] = {
        name: {
            "status": records[name].status,
            "fingerprint": fingerprint(records[name].signing_key.encode()),
            **({"holder": records[name].holder} if records[name].holder else {}),
            **validity(records[name].certificate.encode()),
        }
        if name in records
        else {"status": "not enrolled", "fingerprint": None, "ends": None, "standing": None}
        for name in sorted({*CoordinatorHome(home).plan().sites, *records})
    }
    own = fingerprint(authority.public_key)
    ends = {"CA": authority.ca_pem, "ports": authority.server_certificate_path.read_bytes()}
    if as_json:
        print_json({"fingerprint": own, "sites": rows, **{name: validity(pem) for name, pem in ends.items()}})
        return
    table = Table(title="Sites", caption=f"this coordinator's fingerprint: {own}")
    for heading in ("site", "standing", "fingerprint", "certificate ends", "", "renewed by"):
        # a fingerprint is compared letter by letter: never cut
        table.add_column(heading, min_width=24 if heading == "fingerprint" else None)
    for name, row in rows.items():
        how = f"renew {name}" if row["ends"] else ""
        shown = f"{name} ({row['holder']})" if "holder" in row else name
        table.add_row(shown, row["status"], *(row[key] or "" for key in ("fingerprint", "ends", "standing")), how)
    for name, pem in ends.items():
        known, how = validity(pem), "rotate --authority" if name == "CA" else "rotate"
        # the one of the ports serves the door, the front and the intake
        table.add_row(f"({name})", "", "", known["ends"], known["standing"], how)
    console.print(table)


def revoke_site(
    home: Home, site: Site, yes: Annotated[bool, typer.Option("--yes", help="Revoke without asking.")] = False
) -> None:
    """Shut a site out for good, at once, also from a study that is running."""
    from sfumato_server.enrol import Registry, revoke

    if site not in Registry(home).sites():
        raise ConfigError(f"site '{site}' is not enrolled; nothing to revoke")
    if not yes and not typer.confirm(f"Shut '{site}' out of this study for good?"):
        raise ConfigError("nothing was revoked")
    revoke(home, site)
    said = f"'{site}' is out: it is asked nothing more, what it answers or sends is refused, nothing of it is pooled"
    say(said)


def renew_site(
    home: Home,
    site: Site,
    grant: Annotated[Path, typer.Option(help="Where to write the answer for the site.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Give a site a new certificate over its own keys; one that has ended comes back this way."""
    from sfumato_server.enrol import load_authority, renew

    issued = renew(home, site, passphrase=ask_passphrase(passphrase_file))
    write_atomic(grant, encode_grant(issued, load_authority(home).signing_key))
    say(f"renewed; give '{grant.name}' to the site, for 'sfumato-site renew'")


def rotate(
    home: Home,
    name: Annotated[list[str] | None, typer.Option(help="Host name or address of this coordinator (repeat).")] = None,
    authority: Annotated[bool, typer.Option("--authority", help="A new CA too: every site needs a new grant.")] = False,
    grants: Annotated[Path | None, typer.Option(help="Folder for the sites' grants, with --authority.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a new key and certificate for the coordinator's ports, or with --authority a whole new CA."""
    from sfumato_server.enrol import load_authority, rotate_authority, rotate_server

    if authority != (grants is not None):
        raise ConfigError("--authority and --grants go together: each site needs a grant of the new CA")
    passphrase = ask_passphrase(passphrase_file, new=authority)
    with exclusive(home, "this coordinator"):
        if grants is None:
            rotate_server(home, name or [], passphrase)
            say("the ports have a new certificate of the same CA; sites need nothing")
            return
        signing_key, made = load_authority(home).signing_key, rotate_authority(home, name or [], passphrase)
        for site, issued in made.items():
            write_atomic(grants / f"{site}.grant.json", encode_grant(issued, signing_key))
    say(f"a new CA; give each site its grant from '{grants.name}', for 'sfumato-site renew --replace'")


def add_commands(app: typer.Typer) -> None:
    """Put these commands under `sfumato coordinator`."""
    example = "Example: sfumato coordinator"
    app.command("list", epilog=f"{example} list --home coord")(list_members)
    app.command("revoke", epilog=f"{example} revoke --home coord alder")(revoke_site)
    app.command("renew", epilog=f"{example} renew --home coord alder --grant alder.grant.json")(renew_site)
    words = f"{example} backup --home coord --out coord.backup --hand-over"
    app.command("backup", epilog=words)(backup)
    app.command("restore", epilog=f"{example} restore coord.backup --home coord")(restore)
    app.command("rotate", epilog=f"{example} rotate --home coord --name coordinator.example")(rotate)

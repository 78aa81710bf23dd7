"""`sfumato-site queue | review | approve | refuse | steward`: where people of the site say yes or no to a release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato_client.cli.home import Home
from sfumato_common.command_line import AsJson, ask_passphrase, print_json, say
from sfumato_common.errors import ConfigError, PolicyRefusal

if TYPE_CHECKING:
    from sfumato_client.ledger.decisions import Verdict
    from sfumato_client.site.desk import Entry

steward_app = typer.Typer(no_args_is_help=True, help="The people who decide about releases here.")
Release = Annotated[str, typer.Argument(help="STUDY/PART as 'queue' shows it; the study alone while one part waits.")]
Who = Annotated[str, typer.Option("--steward", help="Whose decision it is: a name that 'steward add' entered.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in one line that the ledger keeps; name no patient.")]
Looked = Annotated[
    bool, typer.Option("--looked", help="You have looked at its images, as 'review' shows them; else it is asked.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="The steward's passphrase, '-' for standard input; else it is asked."),
]


def queue(home: Home, as_json: AsJson = False) -> None:
    """Show every part of every release here, and what waits for a steward."""
    from sfumato_client.site.desk import queue as entries_of

    entries = entries_of(home)
    if as_json:
        print_json({"releases": [_entry_json(entry) for entry in entries]})
        return
    for entry in entries:
        say(f"{entry.name}: {entry.words}")
        for each in entry.said:
            told = each.decision
            ground = f" ({told.ground})" if told.ground else ""
            say(f"    {told.at} {told.steward} [{each.by.fingerprint}]: {told.verdict}{ground}: {told.reason}")
    if not entries:
        say("no plan is accepted here, so that there is no release")


def review(
    home: Home,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
) -> None:
    """Open the stewards' page on this machine until Ctrl-C: what waits, what it shows, and the decision."""
    from sfumato_client.review.serve import serve

    serve(home, port, lambda url: say(f"the stewards' page; keep the address to yourself:\n{url}"))


def approve(
    home: Home,
    release: Release,
    steward: Who,
    reason: Reason,
    looked: Looked = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Let a part of a release go, signed with your own key, after you looked at its images."""
    if not looked:
        if not sys.stdin.isatty():
            raise ConfigError(
                "say that you looked at its images, by --looked; 'sfumato-site review' shows them beside the attacks"
            )
        if not typer.confirm(f"Did you look at the images of '{release}', as 'sfumato-site review' shows them?"):
            raise PolicyRefusal("not approved: nobody looked at it; everything is as it was")
    _decide(home, release, "approve", steward, reason, passphrase_file)


def refuse(
    home: Home,
    release: Release,
    steward: Who,
    reason: Reason,
    ground: Annotated[str, typer.Option(help="quality, study or law; of a declared part resemblance as well.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Keep a part of a release in the site for good, signed with your own key."""
    _decide(home, release, "refuse", steward, reason, passphrase_file, ground)


@steward_app.command("add", epilog="Example: sfumato-site steward add grace --home site --by ada")
def steward_add(
    home: Home,
    name: Annotated[str, typer.Argument(help="The person's name here: small letters, digits and '-'.")],
    by: Annotated[str, typer.Option(help="The steward who lets the person in; the first one needs none.")] = "",
    passphrase_file: PassphraseFile = None,
    by_passphrase_file: Annotated[
        Path | None,
        typer.Option("--by-passphrase-file", help="The passphrase of that steward; else it is asked."),
    ] = None,
) -> None:
    """Make a key for a person who decides about releases, under a passphrase that only this person knows."""
    from sfumato_client.ledger.stewards import require_steward_name
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.stewards import add_steward

    require_steward_name(name)  # before a passphrase is asked for
    introduced = ask_passphrase(by_passphrase_file, f"passphrase of '{by}'", "--by-passphrase-file") if by else b""
    own = ask_passphrase(passphrase_file, f"new passphrase of '{name}'", "--passphrase-file", new=True)
    found = add_steward(SiteHome(home), name, own, by, introduced)
    say(f"'{name}' is a steward, with key {found.fingerprint}; the ledger keeps who let the person in")


@steward_app.command("remove", epilog="Example: sfumato-site steward remove grace --home site --by ada")
def steward_remove(
    home: Home,
    name: Annotated[str, typer.Argument(help="The steward's name.")],
    by: Annotated[str, typer.Option(help="The steward who lets the person go; else the person, by the own word.")] = "",
    by_passphrase_file: Annotated[
        Path | None,
        typer.Option("--by-passphrase-file", help="The passphrase of that steward; else it is asked."),
    ] = None,
) -> None:
    """Let a person decide no longer, by the word of a steward; what the person decided stays."""
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.stewards import remove_steward

    said = ask_passphrase(by_passphrase_file, f"passphrase of '{by or name}'", "--by-passphrase-file")
    remove_steward(SiteHome(home), name, by or name, said)
    say(f"'{name}' is no steward any more, and the key is gone")


@steward_app.command("list", epilog="Example: sfumato-site steward list --home site")
def steward_list(home: Home, as_json: AsJson = False) -> None:
    """Show who decides about releases here, since when, and who let them in."""
    from sfumato_client.ledger.people import stewards
    from sfumato_client.site.home import SiteHome
    from sfumato_common.crypto.identity import load_identity

    site = SiteHome(home)
    with site.open_ledger() as ledger:
        found = stewards(ledger, load_identity(site.identity).signing_public)
    rows = [{"name": s.name, "key": s.fingerprint, "since": s.at, "by": s.by} for s in found.values()]
    if as_json:
        print_json({"stewards": rows})
        return
    for row in rows:
        say(f"{row['name']}: key {row['key']}, since {row['since']}, let in by {row['by'] or 'the site itself'}")
    if not rows:
        say("there are none: 'sfumato-site steward add NAME' makes the first")


def _decide(
    home: Path, release: str, verdict: Verdict, steward: str, reason: str, file: Path | None, ground: str = ""
) -> None:
    from sfumato_client.site.desk import take_decision

    passphrase = ask_passphrase(file, f"passphrase of '{steward}'", "--passphrase-file")
    entry = take_decision(home, release, verdict, steward, passphrase, reason, ground)
    say(f"{entry.name}: {entry.words}")


def _entry_json(entry: Entry) -> dict[str, Any]:
    said = [{**each.decision.fields(), "key": each.by.fingerprint} for each in entry.said]
    return {
        **{"name": entry.name, "study": entry.plan.study, "plan_hash": entry.plan.digest, "part": entry.part},
        **{"state": entry.state, "words": entry.words, "code": entry.code, "since": entry.since},
        **{"persons": entry.persons, "sets": list(entry.sets), "decisions": said},
    }

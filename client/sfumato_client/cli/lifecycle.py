"""`sfumato-site leave | unaccept | withdraw | certificates | remove`: what comes after the first hour, to the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sfumato_client.cli.home import Home
from sfumato_common.command_line import AsJson, console, file_bytes, print_json, say
from sfumato_common.count_text import count_text
from sfumato_common.errors import ConfigError, PolicyRefusal

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name, as its plan has it.")]


def leave(home: Home, study: StudyName) -> None:
    """Take no further part in a study: what it has not charged yet is free for others, what it charged stays."""
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.restored import notice_copy

    site = SiteHome(home)
    notice_copy(site)  # whose coordinators are to be heard is settled before one of them is left
    site.leave(study)
    say(f"left '{study}': its questions are refused from now on")


def unaccept(home: Home, study: StudyName) -> None:
    """Take back an acceptance that cost nothing yet: the corrected plan may then be accepted under the same name."""
    from sfumato_client.site.ending import unaccept
    from sfumato_client.site.home import SiteHome

    for plan in unaccept(SiteHome(home), study):
        say(f"'{study}' is not accepted any more (plan hash {plan.digest}); no patient had paid for it")


def withdraw(
    home: Home,
    patients: Annotated[
        list[str] | None, typer.Argument(metavar="[PATIENT]...", help="Identifiers as the source's table has them.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Or a file of them, one a line.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="They agreed anew: the next ingest may take them again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")] = False,
) -> None:
    """Erase the images of patients who withdrew, and keep them out of every later ingest; the spend stays."""
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.withdrawing import strangers_among, take_back, withdraw

    named = [*(patients or []), *(file_bytes(file).decode("utf-8-sig").splitlines() if file else [])]
    named = list(dict.fromkeys(name.strip() for name in named if name.strip()))
    if not named:
        raise ConfigError("say who: identifiers as the source's table has them, or a file of them with --file")
    site = SiteHome(home)
    if again:
        say(f"{take_back(site, named)} may be ingested again, in the cohort of their first charge")
        return
    if not yes:
        known = len(named) - (strangers := strangers_among(site, named))
        said = f"; {count_text(strangers, 'other has', 'others have')} none and would be kept out" if strangers else ""
        if not typer.confirm(
            f"Erase the images of {count_text(known, 'patient')} here{said}? Nothing brings them back"
        ):
            raise PolicyRefusal("not erased: everything is as it was")
    done = withdraw(site, named)
    say(f"erased {count_text(done.images, 'image')}; no later ingest takes these patients (GDPR Articles 7(3) and 17)")
    if done.strangers:
        say(f"{count_text(done.strangers, 'of them has', 'of them have')} no image here; kept out all the same")
    say(
        "stays: what they were charged, in the ledger (Article 5(2)); models and images that left, which are synthetic "
        "and noised, or made of groups. For a next version without them ask the coordinator: 'rerelease --again'"
    )
    if done.approved:
        say(f"approved, and sent where the coordinator asked: {', '.join(done.approved)}; 'leave' keeps the rest here")
    say("yours to erase: files in the source and in 'incoming', and backups that were made before")


def certificates(home: Home, as_json: AsJson = False) -> None:
    """Show which certificate ends when, and what renews it; those of the coordinator's ports it shows itself."""
    from sfumato_client.site.certificates import certificates_of
    from sfumato_client.site.home import SiteHome

    rows = certificates_of(SiteHome(home))
    if as_json:
        print_json({"certificates": rows})
        return
    table = Table(title="Certificates of this home")
    for heading in ("coordinator", "certificate", "ends", "days left", "standing", "renewed by"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("study", "of", "ends", "days", "standing", "renewed_by")))
    console.print(table)
    if not rows:
        say("none yet: 'sfumato-site join' keeps the first")


def remove(
    home: Home,
    forget_patients: Annotated[
        bool, typer.Option("--forget-patients", help="Erase the split key as well: nobody can be told again here.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Erase images, keys, answers and releases of this home and close its ledger; its account stays."""
    from sfumato_client.site.ending import KEPT, remove
    from sfumato_client.site.home import SiteHome

    site = SiteHome(home)
    name = site.own_policy().site
    say(
        "this erases images, keys, answers, releases and logs of this home for good. Kept are ledger, policy and "
        "plans. Coordinators keep what they received; ask each to revoke this site"
    )
    if not yes and typer.prompt(f"Type the site's name, '{name}', to remove it", default="") != name:
        raise PolicyRefusal("not removed: the name was not typed; everything is as it was")
    done = remove(site, forget_patients)
    say(f"erased: {', '.join(done.erased) or 'nothing'}")
    table = Table(title="Kept, and why")
    for heading in ("what", "why"):
        table.add_column(heading)
    for kept in done.kept:
        table.add_row(kept, KEPT[kept])
    console.print(table)
    say("with others: packages and models that left, at each coordinator; published sets, wherever they are")


def add_commands(app: typer.Typer) -> None:
    """Put these commands under `sfumato-site`."""
    from sfumato_client.cli.moving import backup, restore

    example = "Example: sfumato-site"
    app.command("leave", epilog=f"{example} leave --home site thorax")(leave)
    app.command("unaccept", epilog=f"{example} unaccept --home site thorax")(unaccept)
    app.command("withdraw", epilog=f"{example} withdraw --home site --file withdrawn.txt")(withdraw)
    app.command("certificates", epilog=f"{example} certificates --home site")(certificates)
    app.command("backup", epilog=f"{example} backup --home site --out alder.backup --hand-over")(backup)
    app.command("restore", epilog=f"{example} restore alder.backup --home site")(restore)
    app.command("remove", epilog=f"{example} remove --home site")(remove)

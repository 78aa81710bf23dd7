"""`sfumato-site ledger`: what patients paid, what a plan would add, and the file a data-protection officer checks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sfumato_client.cli.home import Home
from sfumato_common.accounting.accountant import epsilon_text, json_epsilon
from sfumato_common.command_line import (
    AsJson,
    console,
    costs_json,
    costs_table,
    file_bytes,
    forecast_json,
    forecast_table,
    keep_epsilons,
    print_json,
    say,
)
from sfumato_common.files import write_atomic
from sfumato_common.homes import close_home
from sfumato_common.progress import busy
from sfumato_common.study.costs import WITHOUT_PRIVACY
from sfumato_common.study.load import load_resolved_plan

if TYPE_CHECKING:
    from sfumato_client.ledger.check import Figure

ledger_app = typer.Typer(no_args_is_help=True, help="The site's privacy ledger.")
KeyHome = Annotated[
    Path | None,
    typer.Option("--home", help="Or the home folder that has it.", envvar="SFUMATO_SITE_HOME", callback=close_home),
]


@ledger_app.command("show", epilog="Example: sfumato-site ledger show --home site")
def show(
    home: Home,
    entries: Annotated[
        bool, typer.Option("--entries", help="Every single charge, with its mechanism, for who audits.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What was taken, when, for which study, at what epsilon, and who let it go; what a patient has paid in all."""
    from sfumato_client.cli.statement import account_json, entries_table, entry_json, lines_table, releases_table
    from sfumato_client.ledger.statement import statement
    from sfumato_client.site.home import SiteHome
    from sfumato_common.accounting.events import Unprotected

    site = SiteHome(home)
    with site.open_ledger() as ledger:
        charges, settled, costs = ledger.entries(), ledger.settled_results(), ledger.costs()
        account, budget = statement(ledger, site.public_key()), ledger.budget
    bare = sorted({entry.study for entry in charges if isinstance(entry.event, Unprotected)})
    if as_json:
        terms = {"epsilon": budget.epsilon, "delta": budget.delta}
        shown = [entry_json(entry, settled) for entry in charges]
        totals = {"costs": costs_json(costs), "without_privacy": bare}
        print_json({"budget": terms, "entries": shown, **totals, **account_json(account)})
        return
    console.print(entries_table(charges, settled) if entries else lines_table(account, budget.delta))
    if account.releases and not entries:
        console.print(releases_table(account))
    if unsettled := len(charges) - len(settled):
        say(f"{unsettled} charges were never settled (a crash, or work in progress); they count all the same")
    if bare:
        say(f"NO PRIVACY: {WITHOUT_PRIVACY} in {', '.join(bare)}")
    console.print(costs_table(costs, budget.delta))
    for cohort, cost in (("train", costs.train), ("holdout", costs.holdout)):
        say(
            f"{cohort}: epsilon {epsilon_text(cost.add_remove)} of {budget.epsilon:g} at delta {budget.delta:g}, "
            f"adjacency add/remove; replace-one: {epsilon_text(cost.replace_one)}"
        )


@ledger_app.command("page", epilog="Example: sfumato-site ledger page --home site --out ledger.html")
def page(home: Home, out: Annotated[Path, typer.Option(help="Where the page goes, HTML.")]) -> None:
    """Write the ledger as one page for the data-protection officer: to read, to print; it stays in the site."""
    from sfumato_client.ledger.page import ledger_page
    from sfumato_client.site.home import SiteHome

    site = SiteHome(home)
    with site.open_ledger() as ledger:
        write_atomic(out, ledger_page(ledger, site.public_key(), site.own_policy().noise == "test"), mode=0o600)
    say(f"'{out.name}' is for the data-protection officer: it stays in the site unless the site decides otherwise")


@ledger_app.command("verify", epilog="Example: sfumato-site ledger verify --home site")
def verify(home: Home) -> None:
    """Recompute the hash chain; fails at the first entry that was changed, removed or moved."""
    from sfumato_client.site.home import SiteHome

    with SiteHome(home).open_ledger() as ledger:
        ledger.verify()
    say("the ledger's chain holds")


@ledger_app.command("recover", epilog="Example: sfumato-site ledger recover --home site")
def recover(home: Home, yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")] = False) -> None:
    """Put back the charges that were lost when the site's disk was restored from a backup."""
    from sfumato_client.ledger.copies import read_restored
    from sfumato_client.site import recovery
    from sfumato_client.site.home import SiteHome
    from sfumato_common.accounting.events import event_to_json

    site = SiteHome(home)
    lost, restored = recovery.recoveries(site), read_restored(site.ledger_file)
    if not lost and restored is None:
        say("the ledger lacks nothing that a coordinator told this site of")
        return
    table = Table(title="Charges that the ledger lost")
    for heading in ("study", "purpose", "round", "cohort", "mechanism"):
        table.add_column(heading)
    for item in lost:
        for owed in item.owed:
            event = ", ".join(f"{key} {value}" for key, value in event_to_json(owed.event).items())
            table.add_row(item.plan.study, owed.purpose, str(owed.round), owed.cohort, event)
    if lost:
        console.print(table)
        say(
            "What these paid for has left the site. They are put back, and never run again. What the site sent in "
            "other studies since the backup is told by their coordinators; for a table that was made since, no charge "
            "is known."
        )
    if unheard := sorted(item.plan.study for item in lost if item.unheard):
        say(
            f"No coordinator of {', '.join(unheard)} was heard since this home was copied or restored: all that it can "
            "have charged is counted, and the study is at its end here. To go on with it, wait for its questions"
        )
    if restored is not None:
        say("By going on you say that no other copy of this home is in use, on any machine.")
    if not yes:
        typer.confirm("Put back what is missing, and let the site go on?", abort=True)
    recovery.recover(site, lost)
    say("the ledger holds them again; start the site again if it does not run")


@ledger_app.command("forecast", epilog="Example: sfumato-site ledger forecast plan.yaml --home site")
def forecast(
    home: Home,
    plan: Annotated[Path, typer.Argument(help="A study plan, YAML; nothing is pinned.")],
    as_json: AsJson = False,
) -> None:
    """What a plan would add on top of everything spent, and how much of the budget it leaves."""
    from sfumato_client.site.admission import check_budget, forecast_here
    from sfumato_client.site.home import SiteHome

    site = SiteHome(home)
    policy = site.policy()
    keep_epsilons(site.epsilons)
    study = load_resolved_plan(plan).at_site(policy.site)
    with site.open_ledger() as ledger, busy("accounting", as_json):
        before = max(ledger.spent_epsilon("train"), ledger.spent_epsilon("holdout"))
        cost = forecast_here(study, policy, ledger)
    after, budget = cost.totals.patient.add_remove, policy.budget
    if as_json:
        terms = {"epsilon": budget.epsilon, "delta": budget.delta}
        paid = {"spent": json_epsilon(before), "after": json_epsilon(after), "left": max(budget.epsilon - after, 0.0)}
        print_json({**forecast_json(cost), "study": study.study, "plan_hash": study.digest, "budget": terms, **paid})
        if study.private:
            check_budget(study, policy, cost)
        return
    console.print(forecast_table(cost, f"Plan '{study.study}' on top of the ledger of '{policy.site}'"))
    say(
        f"a patient has paid epsilon {epsilon_text(before)}; with this plan {epsilon_text(after)} of "
        f"{budget.epsilon:g} at delta {budget.delta:g}: {max(budget.epsilon - after, 0.0):.3f} left"
    )
    if not study.private:
        say(f"NO PRIVACY: {WITHOUT_PRIVACY}; no study that is private fits the budget after it")
        return
    check_budget(study, policy, cost)
    say("the plan fits the budget; whether it fits the rest of the policy is checked by 'accept'")


@ledger_app.command("export", epilog="Example: sfumato-site ledger export --home site --out ledger.json")
def export(home: Home, out: Annotated[Path, typer.Option(help="Where the file goes, JSON.")]) -> None:
    """Write the whole ledger as one file for the data-protection officer; it stays in the site."""
    from sfumato_client.site.home import SiteHome

    with SiteHome(home).open_ledger() as ledger:
        write_atomic(out, ledger.export(), mode=0o600)
    say(
        f"'{out.name}' holds every charge of every study, for the data-protection officer: it stays in the site unless "
        "the site decides otherwise"
    )


@ledger_app.command("check", epilog="Example: sfumato-site ledger check ledger.json release.sfumato --key key.pem")
def check(
    exported: Annotated[Path, typer.Argument(metavar="EXPORT", help="A file written by 'ledger export'.")],
    package: Annotated[Path, typer.Argument(help="A release package of this site, or the folder of a table.")],
    key: Annotated[Path | None, typer.Option(help="The site's public signing key, PEM.")] = None,
    home: KeyHome = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every epsilon of a certificate from an exported ledger, with another accountant."""
    from sfumato_client.ledger.check import check_package, check_table
    from sfumato_common.tabular.certificate import CERTIFICATE, SIGNATURE, TABLE

    public, what = _public_key(key, home), "table" if package.is_dir() else "package"
    if what == "table":
        certificate, signature, rows = (file_bytes(package / name) for name in (CERTIFICATE, SIGNATURE, TABLE))
        report = check_table(file_bytes(exported), certificate, signature, rows, public)
    else:
        report = check_package(file_bytes(exported), file_bytes(package), public)
    if as_json:
        print_json({**asdict(report), "figures": [_figure_json(figure) for figure in report.figures]})
        report.require()
        return
    table = Table(title=f"Certificate of '{report.site}' for study '{report.study}', delta {report.delta:g}")
    for heading in ("who", "epsilon", "stated", "recomputed", "verdict"):
        table.add_column(heading, justify="right" if heading in ("stated", "recomputed") else "left")
    for figure in report.figures:
        stated, again = epsilon_text(figure.stated, 4), epsilon_text(figure.recomputed, 4)
        table.add_row(figure.who, figure.name, stated, again, "holds" if figure.holds else "WRONG")
    console.print(table)
    if not report.private:
        say(f"NO PRIVACY: {WITHOUT_PRIVACY}; epsilon is infinite")
    if report.noise == "test":
        say("TEST NOISE: no guarantee; the figures are what secure noise would have cost")
    if report.pending:
        say(f"the certificate counts {report.pending} runs that the export does not hold: still to come, or cut off")
    if report.unsettled:
        say(f"{report.unsettled} charges of it were never settled in the export: a crash, or work in progress")
    if report.approved is False:
        say("no approval of this package is in the export, and a site sends none without: ask for a later export")
    report.require()
    if report.approvals:
        which = ", of which one is for this very package" if report.approved else ""
        say(f"the site's signature holds on {report.approvals} approvals in the export{which}")
    signed = f"and the {what}'s signature hold" if report.signature_checked else "holds; NO signature was checked"
    say(f"the ledger's chain {signed}; plan {report.plan_hash}")


def _figure_json(figure: Figure) -> dict[str, Any]:
    """A null epsilon is infinite."""
    again = {"stated": json_epsilon(figure.stated), "recomputed": json_epsilon(figure.recomputed)}
    return {**asdict(figure), **again, "holds": figure.holds}


def _public_key(key: Path | None, home: Path | None) -> bytes | None:
    """The site's public signing key: given, or from its home; None leaves the signature unchecked."""
    from sfumato_client.site.home import SiteHome
    from sfumato_common.crypto.identity import load_identity

    if key is not None:
        return file_bytes(key)
    return load_identity(SiteHome(home).identity).signing_public if home is not None else None

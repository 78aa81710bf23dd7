"""The closing summary of a run on the terminal: stages, bytes, epsilons, TSTR."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.command_line import console, forecast_table, say
from sfumato_common.study.costs import WITHOUT_PRIVACY
from sfumato_common.study.forecast import forecast
from sfumato_common.study.plan import Plan


def print_summary(plan: Plan, run: dict[str, Any], status: dict[str, Any]) -> None:
    """Print it."""
    console.print(forecast_table(forecast(plan, plan.privacy.delta), f"Study '{plan.study}': what a patient paid"))
    table = Table(title="Exchanges")
    for heading in ("exchange", "seconds", "bytes to sites", "bytes from sites", "sites"):
        table.add_column(heading, justify="left" if heading in ("exchange", "sites") else "right")
    for item in run["exchanges"]:
        number = f" {item['round']}/{item['rounds']}" if item["rounds"] > 1 else ""
        sites = ", ".join(f"{site} {state}" for site, state in item["sites"].items())
        table.add_row(
            f"{item['stage']}{number}",
            f"{item['seconds']:.1f}",
            f"{item['bytes_down']:,}",
            f"{item['bytes_up']:,}",
            sites,
        )
    console.print(table)
    setup = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.get("setup_seconds", {}).items())
    say(f"set-up: {setup}")
    packages = ", ".join(f"{site} {size:,}" for site, size in run["package_bytes"].items())
    say(f"package bytes: {packages}")
    say(f"study and publishing: {run['seconds']:.1f} s")
    if choice := run.get("choice"):
        _print_choice(choice)
    if utility := run.get("utility"):
        _print_utility(utility)
    released = ", ".join(f"{item.method} from {item.model} ({plan.guarantee_level(item)})" for item in plan.release)
    say(f"released: {released}")
    spent = epsilon_text(status.get("epsilon_spent", 0.0))
    of = f"of {plan.privacy.epsilon:g} at delta {plan.privacy.delta:g}" if plan.private else f"({WITHOUT_PRIVACY})"
    say(f"epsilon {spent} {of}, unit patient, adjacency add/remove")
    if bare := [item.method for item in plan.release if plan.private and plan.guarantee_level(item) != "formal"]:
        say(f"  (no epsilon covers the images by {', '.join(bare)})")


def _print_choice(choice: dict[str, Any]) -> None:
    for item in choice["candidates"]:
        figure = "no figure left by the noise"
        if item["auc"] is not None:
            figure = f"AUC {item['auc']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"
        say(f"choice {item['model']}: {figure}, moments off by {item['distance']:.2f}: {item['verdict']}")
    say(f"  ({choice['noise']}; of training patients)")


def _print_utility(utility: dict[str, Any]) -> None:
    rows = {"pooled": utility["pooled"], **utility["sites"]}
    for name, figure in rows.items():
        if figure is None or figure["auc"] is None:
            say(f"TSTR AUC {name}: no figure left by the noise")
        else:
            interval = f"[{figure['low']:.3f}, {figure['high']:.3f}]" if figure["low"] is not None else ""
            say(f"TSTR AUC {name}: {figure['auc']:.3f} {interval}")
    say(
        f"  ({utility['noise']}; epsilon {epsilon_text(utility['epsilon_holdout'])} at delta {utility['delta']:g} "
        "for holdout patients)"
    )

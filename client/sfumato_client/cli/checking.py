"""`sfumato-site check`: everything that can be wrong at a site, at once, and what a study would find and cost."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato_client.cli.home import Home, Study
from sfumato_client.cli.ingest import Workers
from sfumato_common.command_line import AsJson, console, forecast_json, forecast_table, keep_epsilons, print_json, say
from sfumato_common.errors import ConfigError, SfumatoError
from sfumato_common.progress import shown
from sfumato_common.study.load import load_resolved_plan

if TYPE_CHECKING:
    from sfumato_client.site.checks import Finding, Subject
    from sfumato_common.study.forecast import Forecast

_COLOURS = {"good": "green", "note": "yellow", "wrong": "bold red", "skipped": "dim"}
Findings = list[tuple[str, "Finding"]]
Source = Annotated[
    Path | None, typer.Argument(help="Description of the data source, YAML; without it the store counts.")
]
StudyPlan = Annotated[Path | None, typer.Option("--plan", help="The plan that the site would take part in.")]
AdviceFile = Annotated[Path | None, typer.Option("--advice", help="The coordinator's 'advice.json' of this plan.")]
Offline = Annotated[bool, typer.Option("--offline", help="Leave the coordinator alone.")]


def check(
    home: Home,
    source: Source = None,
    plan: StudyPlan = None,
    study: Study = "",
    advice: AdviceFile = None,
    offline: Offline = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Look at everything at once: policy, keys, ledger, machine, coordinator, plan, images, gate; and what to do."""
    from sfumato_client.site.checks import Finding, Subject, look
    from sfumato_client.site.home import SiteHome

    site = SiteHome(home, study)
    site.own_policy()  # without a home there is nothing to look at
    keep_epsilons(site.epsilons)
    subject, failed = Subject(site, advice=advice, reach=not offline), Findings()
    try:
        subject = _with_plan(subject, plan)
    except SfumatoError as error:
        failed = [("plan", Finding("wrong", str(error)))]
    else:
        try:
            subject = _with_images(subject, source, workers, as_json)
        except SfumatoError as error:
            subject = replace(subject, unread=str(error))
    found = [*look(subject), *failed]
    cost = _cost(subject)
    if as_json:
        said = [{"check": name, **asdict(finding)} for name, finding in found]
        print_json({"findings": said, "forecast": None if cost is None else forecast_json(cost)})
    else:
        _print(subject, found, cost)
    if wrong := sum(finding.state == "wrong" for _, finding in found):
        things = "one thing is" if wrong == 1 else f"{wrong} things are"
        raise ConfigError(f"{things} wrong; each line marked 'wrong' says what to do")


def _with_plan(subject: Subject, plan: Path | None) -> Subject:
    if plan is None:
        return subject
    return replace(subject, plan=load_resolved_plan(plan).at_site(subject.home.policy().site))


def _with_images(subject: Subject, source: Path | None, workers: int, quiet: bool) -> Subject:
    """With what the source would give, or, without one, with the store that stands."""
    from sfumato_client.ingest import load_source
    from sfumato_client.site.ingesting import check_source

    if source is None:
        return replace(subject, store=subject.home.open_store()) if subject.home.store.exists() else subject
    if subject.plan is None:
        raise ConfigError("images are read for a plan: pass --plan plan.yaml, which says their size and labels")
    described = load_source(source)
    with shown("reading", quiet) as watch:
        report, store = check_source(subject.home, described, subject.plan, workers, watch)
    return replace(subject, report=report, store=store)


def _cost(subject: Subject) -> Forecast | None:
    """What the plan would cost a patient here; None without a plan, or where that cannot be said."""
    from sfumato_client.site.checks.study import forecast_of

    if subject.plan is None:
        return None
    try:
        return forecast_of(subject.home, subject.plan, subject.home.policy())
    except SfumatoError:
        return None


def _print(subject: Subject, found: Findings, cost: Forecast | None) -> None:
    from sfumato_client.site.ingesting import SHEET

    for name, finding in found:
        console.print(f"{finding.state:>7}", style=_COLOURS[finding.state], end="")
        say(f"  {name:<11}  {finding.said}")
    if (report := subject.report) is not None:
        for what, counts in (
            ("patients by split", report.patients_by_split),
            ("images by view", report.images_by_view),
            ("images by device", report.images_by_device),
            ("images by modality", report.images_by_modality),
        ):
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            say(f"{what}: {said}")
        say(f"look at '{SHEET}' in the home folder: {report.sheet}")
    if cost is not None and subject.plan is not None:
        console.print(forecast_table(cost, f"What plan '{subject.plan.study}' would cost a patient here"))

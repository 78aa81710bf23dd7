"""`sfumato-site check` and `sfumato-site ingest`: a hospital's images, looked at and then stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sfumato_client.cli.home import Home
from sfumato_common.command_line import console
from sfumato_common.study.load import load_resolved_plan

if TYPE_CHECKING:
    from sfumato_client.dataset import IngestReport
    from sfumato_client.site.ingesting import Watch

Source = Annotated[Path, typer.Argument(help="Description of the data source, YAML.")]
StudyPlan = Annotated[Path, typer.Option("--plan", help="The plan: image size, channels and labels come from it.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read; 0 for one a core.")]
Update = Annotated[bool, typer.Option("--update", help="Put what the source says now in the place of the store.")]


def ingest(
    home: Home,
    source: Source,
    plan: StudyPlan,
    workers: Workers = 0,
    update: Update = False,
) -> None:
    """Read DICOM, PNG, JPEG, TIFF or npz into the site's store; what is skipped is listed in a local report."""
    from sfumato_client.ingest import load_source
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.ingesting import ingest_source, update_source

    study, fill = load_resolved_plan(plan), update_source if update else ingest_source
    with _progress("reading") as watch:
        report = fill(SiteHome(home), load_source(source), study, workers, watch)
    _say(
        f"kept {report.kept} images of {report.patients} patients, skipped {len(report.skipped)} "
        "(reasons in 'ingest-report.json' of the home folder, which stays here)"
    )
    _say_notes(report)


def check(home: Home, source: Source, plan: StudyPlan, workers: Workers = 0) -> None:
    """Look at a whole source before it is stored: what would be kept, what has to be asked, what to look at."""
    from sfumato_client.ingest import load_source
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.ingesting import SHEET, check_source

    study = load_resolved_plan(plan)
    with _progress("reading") as watch:
        report = check_source(SiteHome(home), load_source(source), study, workers, watch)
    _say(f"would keep {report.kept} images of {report.patients} patients, and skip {len(report.skipped)}")
    for what, counts in (
        ("patients by split", report.patients_by_split),
        ("images by view", report.images_by_view),
        ("images by device", report.images_by_device),
        ("images by modality", report.images_by_modality),
    ):
        _say(f"{what}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    _say_notes(report)
    _say(f"look at '{SHEET}' in the home folder: {report.sheet}")
    report.require_answers()
    _say("nothing has to be asked: 'sfumato-site ingest' stores this set")


def _say_notes(report: IngestReport) -> None:
    for reason, count in report.reasons.items():
        _say(f"  {count} x {reason}")
    for note in report.notes:
        _say(f"note: {note}")
    if report.read_otherwise:
        _say(f"note: {len(report.read_otherwise)} images were read otherwise than they say; the report names them")


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def _progress(what: str) -> Iterator[Watch]:
    """A bar with the time that is left, where somebody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

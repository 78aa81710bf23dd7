"""`sfumato-site ingest`: a hospital's images, read into the site's store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato_client.cli.home import Home
from sfumato_common.command_line import say
from sfumato_common.progress import shown
from sfumato_common.study.load import load_resolved_plan

if TYPE_CHECKING:
    from sfumato_client.dataset import IngestReport

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
    with shown("reading") as watch:
        report = fill(SiteHome(home), load_source(source), study, workers, watch)
    say(
        f"kept {report.whose}, skipped {len(report.skipped)} "
        "(reasons in 'ingest-report.json' of the home folder, which stays here)"
    )
    _say_notes(report)


def _say_notes(report: IngestReport) -> None:
    for reason, count in report.reasons.items():
        say(f"  {count} x {reason}")
    for note in report.notes:
        say(f"note: {note}")
    if report.otherwise_note:
        say(f"note: {report.otherwise_note}")

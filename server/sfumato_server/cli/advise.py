"""`sfumato plan advise`: what quality to expect of a plan at which size, with its spread, and which size to ask for."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.command_line import AsJson, console, duration_text, print_json, say
from sfumato_common.files import make_private_folder, temporary_in
from sfumato_server.cli.simulate import (
    MOST_PATIENTS,
    MOST_SITES,
    ByDevice,
    Data,
    LabelAlpha,
    On,
    RayAddress,
    Seed,
    WorkerGpus,
    Workers,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfumato_server.simulate.advise import Grid
    from sfumato_server.simulate.study import Tell


def advise(
    plan: Annotated[Path, typer.Argument(help="Study plan, YAML; its sites are replaced by simulated ones.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder of its own; figures in it are used again.")],
    sites: Annotated[str, typer.Option(help="Numbers of sites, such as 3,10.")] = "3,10",
    patients: Annotated[str, typer.Option(help="Numbers of patients a site, such as 60,240,960.")] = "60,240,960",
    repeats: Annotated[int, typer.Option(min=2, max=99, help="Runs of each size, for their spread.")] = 3,
    data: Data = "phantom",
    label_alpha: LabelAlpha = None,
    by_device: ByDevice = False,
    seed: Seed = 0,
    workers: Workers = None,
    on: On = "processes",
    ray_address: RayAddress = None,
    worker_gpus: WorkerGpus = 0.0,
    release: Annotated[
        bool, typer.Option("--release", help="Sites make their releases: the figure is of all that they publish.")
    ] = False,
    no_anchors: Annotated[
        bool, typer.Option("--no-anchors", help="Leave out real images of as many, and the run without noise.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say by simulated studies what quality to expect at which size, and which is enough. Run it again to go on."""
    from sfumato_server.simulate.advise import advising
    from sfumato_server.simulate.cohorts import Spread
    from sfumato_server.simulate.engines import Where
    from sfumato_server.simulate.run import Question

    sizes = numbers(sites, "--sites", MOST_SITES), numbers(patients, "--patients", MOST_PATIENTS)
    asked = Question(plan, data, *sizes, repeats, Spread(label_alpha, by_device), seed, release)
    make_private_folder(out)
    temporary_in(out)  # torch keeps a folder where they go
    where = Where(on, workers, ray_address, worker_gpus)
    with advising(asked, out, where, anchors=not no_anchors) as grid:
        if not as_json:
            say(before(grid))
        with _shown(grid, not as_json) as (tell, ended):
            report = grid.run(tell, ended)
    if as_json:
        print_json(report)
        return
    console.print(advice_table(report))
    for said in (*report["notes"], *report["advice"], f"Rule: {report['rule']}.", report["caution"]):
        say(said)


def before(grid: Grid) -> str:
    """What is about to run, what is there already, and how long it takes, roughly."""
    cells, missing = len(grid.asked.cells), len(grid.missing)
    kept = f", {cells - missing} of them kept from before" if cells > missing else ""
    how = "by those" if kept else "a guess by the plan's steps; the first study tells better"
    takes = f": about {duration_text(grid.left_s)} on {grid.workers} free cores ({how})" if missing else ""
    return f"{cells} figures{kept}{takes}. Ctrl-C keeps what ended; the same command goes on."


def advice_table(report: dict[str, Any]) -> Table:
    """A row a size: median, least and most over its repeats, beside real images of as many and a run without noise."""
    table = Table(
        title=f"What to expect of plan '{report['plan']}' (simulated on {report['data']}, sites: {report['spread']})",
        caption=f"AUC of a classifier that saw {report['figure']}, on patients whom no site had; epsilon of what was "
        f"simulated, for a training patient, add/remove, at delta {report['delta']:g}",
    )
    headings = ("sites", "patients a site", "in all", "epsilon", "AUC [least, most]", "model")
    for heading in (*headings, "real images", "no noise"):
        table.add_column(heading, justify="right")
    for size in report["sizes"]:
        drowned = size["auc"] and statistics.median(size["auc"]) <= report["guess_limit"]
        figure = "not run" if size["refused"] else _spread(size["auc"]) + (" no figure" if drowned else "")
        table.add_row(
            *map(str, (size["sites"], size["patients"], size["sites"] * size["patients"])),
            "-" if size["refused"] else epsilon_text(size["epsilon"]),
            figure,
            " ".join(dict.fromkeys(size["models"])) or "-",
            _spread(size["real"]),
            "-" if size["noiseless"] is None else f"{size['noiseless']:.3f}",
        )
    return table


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


@contextmanager
def _shown(grid: Grid, visible: bool) -> Iterator[tuple[Tell, Callable[[], None]]]:
    """Two bars: figures of all that are asked, with the time left, and what is under way."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not visible) as progress:
        whole = progress.add_task("figures", total=len(grid.asked.cells))
        part = progress.add_task("set-up", total=None)

        def tell(what: str, done: int, of: int) -> None:
            progress.update(part, description=what, completed=done, total=of)

        def ended() -> None:
            done = len(grid.asked.cells) - len(grid.missing)
            left = f"figures, about {duration_text(grid.left_s)} left" if grid.missing else "figures"
            progress.update(whole, description=left, completed=done)

        ended()
        yield tell, ended

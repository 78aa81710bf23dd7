"""`sfumato simulate`: what a plan may be expected to give, before a hospital is asked."""

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
from sfumato_common.command_line import AsJson, console, print_json, say
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder, temporary_in

if TYPE_CHECKING:
    from sfumato_server.simulate.study import Tell

MOST_SITES, MOST_PATIENTS = 256, 1_000_000  # of a plan; of a site

Data = Annotated[str, typer.Option(help="phantom, or the index CSV of public images.")]
LabelAlpha = Annotated[
    float | None,
    typer.Option(min=0.001, help="Sites differ in their share of ill patients: alpha of a Dirichlet distribution."),
]
ByDevice = Annotated[bool, typer.Option("--by-device", help="Each site has one device's images only.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed draws the same patients and the same noise.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")]
On = Annotated[str, typer.Option("--on", help="What keeps the processes: processes (of this machine), or ray.")]
RayAddress = Annotated[
    str | None, typer.Option(help="A Ray cluster, HOST:PORT or auto; without it Ray runs on this machine alone.")
]
WorkerGpus = Annotated[
    float, typer.Option(min=0.0, help="A process's share of accelerators on Ray, such as 1 or 0.25.")
]


def simulate(
    plan: Annotated[Path, typer.Argument(help="Study plan, YAML; its sites are replaced by simulated ones.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder of its own; nothing is written elsewhere.")],
    sites: Annotated[str, typer.Option(help="Numbers of sites, such as 3,10,100.")] = "10",
    patients: Annotated[str, typer.Option(help="Numbers of patients a site, such as 100,300.")] = "200",
    data: Data = "phantom",
    label_alpha: LabelAlpha = None,
    by_device: ByDevice = False,
    repeats: Annotated[int, typer.Option(min=1, max=99, help="Runs of each size, for their spread.")] = 1,
    seed: Seed = 0,
    workers: Workers = None,
    on: On = "processes",
    ray_address: RayAddress = None,
    worker_gpus: WorkerGpus = 0.0,
    release: Annotated[
        bool, typer.Option("--release", help="Sites make and send their releases, too: gate, packages and figure.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the sites' homes; they are removed after each run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run studies of many simulated sites here; show utility by number of sites and of patients."""
    from sfumato_server.simulate.cohorts import Spread
    from sfumato_server.simulate.engines import Where
    from sfumato_server.simulate.run import Question, run_simulation

    asked = Question(
        plan,
        data,
        numbers(sites, "--sites", MOST_SITES),
        numbers(patients, "--patients", MOST_PATIENTS),
        repeats,
        Spread(label_alpha, by_device),
        seed,
        release,
        keep,
    )
    make_private_folder(out)
    temporary_in(out)  # torch keeps a folder where they go
    with _shown(not as_json) as tell:
        report = run_simulation(asked, out, Where(on, workers, ray_address, worker_gpus), tell)
    if as_json:
        print_json(report)
        return
    console.print(simulation_table(report))
    say(
        f"SIMULATED, on {report['data']} ({report['spread']}): AUC on patients whom no site had, of a classifier that "
        f"saw images drawn from each model alone; all of it in '{out.name}'"
    )


def simulation_table(report: dict[str, Any]) -> Table:
    """A row a size: mean and standard deviation over its repeats."""
    rows: list[dict[str, Any]] = report["rows"]
    models = list(rows[0]["utility"])
    table = Table(title="Simulated studies")
    headings = ("sites", "patients a site", "epsilon", *(f"AUC {m}" for m in models), "chosen", "s", "processor s")
    for heading in (*headings, "MB a site down", "up"):
        table.add_column(heading, justify="right")
    for size in dict.fromkeys((row["sites"], row["patients"]) for row in rows):
        own = [row for row in rows if (row["sites"], row["patients"]) == size]
        moved = [statistics.mean(row[key] for row in own) / size[0] / 1e6 for key in ("bytes_down", "bytes_up")]
        table.add_row(
            *map(str, size),
            epsilon_text(own[0]["epsilon"]),
            *(_spread([row["utility"][model] for row in own]) for model in models),
            " ".join(str(row["chosen"] or "-") for row in own),
            *(f"{statistics.mean(sum(row[k].values()) for row in own):.0f}" for k in ("seconds", "processor_seconds")),
            *(f"{megabytes:.2f}" for megabytes in moved),
        )
    return table


def _spread(values: list[float]) -> str:
    """Mean, and deviation where there are several."""
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def numbers(text: str, option: str, most: int) -> list[int]:
    """`3,10`. Raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= most for part in parts):
        raise ConfigError(f"{option} is a list of numbers from 1 to {most}, such as 3,10")
    return sorted({int(part) for part in parts})


@contextmanager
def _shown(visible: bool) -> Iterator[Tell]:
    """A bar for what is under way."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not visible) as progress:
        task = progress.add_task("set-up", total=None)

        def tell(what: str, done: int, of: int) -> None:
            progress.update(task, description=what, completed=done, total=of)

        yield tell

"""Tables of the utility bench: a line a row and epsilon, real images as the reference, and the targets.

The same tables go to the terminal and, as Markdown, to a file that docs/performance.md quotes.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from judge_report import VIEWS, interval_text, judge_rows
from rich.console import Console
from rich.table import Table
from utility_targets import NOT_SITES, Cells, Spread, targets_of

# decimals by column; scores that are not here stand in the JSON file
COLUMNS = {
    "auc": 3,
    "bal. acc.": 3,
    "linear auc": 3,
    "FD random": 1,
    "FD trained": 1,
    "FD given": 1,
    "precision": 2,
    "recall": 2,
    "coverage": 2,
    "structure": 3,
    "nearest": 2,
    "ECE": 2,
    "bits": 3,
}
FAILED = "failed"
JUDGES_BELOW = (
    "'own SITE': trained on that site's own images alone, on its own patients. 'a release's 95 %': where the figure of "
    "one release may lie, by the chance of the release, of its judge, and of who the patients are."
)


@dataclass(frozen=True)
class Sheet:
    """One table: its title, its columns' names, its rows, and a line below it (or none)."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    below: str = ""


def tables_of(results: list[dict[str, Any]]) -> list[Sheet]:
    """Scores with the models that `best` chose, and targets, one cohort after the other."""
    sheets = []
    for cohort in dict.fromkeys(result["cohort"] for result in results):
        own = sorted((result for result in results if result["cohort"] == cohort), key=lambda result: result["order"])
        cells, failures = cells_of(own), failures_of(own)
        sheets.append(_scores(own, cells, failures))
        for view, who in VIEWS.items():
            columns, rows = judge_rows(own, cells, _cell, view)
            sheets += [Sheet(f"{cohort}: AUC of judges on {who}", columns, rows, JUDGES_BELOW)] if rows else []
        targets = _targets(cohort, cells, failures)
        sheets += [targets] if targets.rows else []
    return sheets


def print_tables(sheets: list[Sheet]) -> None:
    """The tables on the terminal."""
    console = Console(width=190)
    for sheet in sheets:
        table = Table(*sheet.columns, title=sheet.title)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
        if sheet.below:
            console.print(sheet.below)


def markdown(sheets: list[Sheet], run: dict[str, Any]) -> str:
    """The tables as Markdown, below the command that made them; `run` is the head of the JSON file."""
    # files of before commands were recorded have none
    parts = [f"`{run.get('command', 'command not recorded')}`: {summary(run)}"]
    for sheet in sheets:
        lines = [sheet.columns, ["---"] * len(sheet.columns), *sheet.rows]
        parts += [sheet.title, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
        parts += [sheet.below] if sheet.below else []
    return "\n\n".join(parts) + "\n"


def summary(run: dict[str, Any]) -> str:
    """How much of a run is there, and what it took."""
    ran, failed = len(run["runs"]), sum(FAILED in result for result in run["runs"])
    jobs = f"{ran} jobs" if ran == run.get("jobs", ran) else f"{ran} of {run['jobs']} jobs (not finished)"
    return f"{jobs}, {failed} failed, in {run['seconds'] / 60:.1f} minutes; {run['images']} images a set"


def cells_of(results: list[dict[str, Any]]) -> Cells:
    """Mean and deviation over seeds (nan for one) of a cohort's scores by row and epsilon; of jobs that ran."""
    found: dict[tuple[str, float | None], list[dict[str, float]]] = {}
    for result in results:
        if FAILED not in result:
            found.setdefault((result["row"], result["epsilon"]), []).append(result["scores"])
    return {
        cell: {
            name: _spread([one[name] for one in scores if name in one])
            for name in {name: 0 for one in scores for name in one}
        }
        for cell, scores in found.items()
    }


def failures_of(results: list[dict[str, Any]]) -> dict[tuple[str, float | None], str]:
    """Seeds that failed and all seeds, in words, by row and epsilon; only cells with a failure."""
    found: dict[tuple[str, float | None], list[bool]] = {}
    for result in results:
        found.setdefault((result["row"], result["epsilon"]), []).append(FAILED in result)
    return {cell: f"{sum(failed)} of {len(failed)} {FAILED}" for cell, failed in found.items() if any(failed)}


def _spread(values: list[float]) -> Spread:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def _scores(results: list[dict[str, Any]], cells: Cells, failures: dict[tuple[str, float | None], str]) -> Sheet:
    present = {name for scores in cells.values() for name in scores}
    sites = sorted(name for name in present if name.startswith("auc ") and name not in NOT_SITES)
    columns = {"auc": COLUMNS["auc"], **dict.fromkeys(sites, 3), **COLUMNS}
    shown = {name: digits for name, digits in columns.items() if name in present}
    rows = []
    for cell in dict.fromkeys((result["row"], result["epsilon"]) for result in results):
        row, epsilon = cell
        some = cell in cells
        values = [_cell(cells[cell].get(name), digits) if some else FAILED for name, digits in shown.items()]
        own = [one["scores"] for one in results if (one["row"], one["epsilon"]) == cell and FAILED not in one]
        if "auc low" in present:
            values.insert(1, interval_text(own, "auc"))
        name = f"{row} ({failures[cell]})" if cell in failures else row
        rows.append([name, "-" if epsilon is None else f"{epsilon:g}", *values])
    chosen = [f"{r['epsilon']:g}: {r['model']}" for r in results if r["row"] == "best" and FAILED not in r]
    below = f"what 'best' chose, by epsilon: {', '.join(chosen)}" if chosen else ""
    title = f"{results[0]['cohort']}: mean ± standard deviation over seeds"
    heads = list(shown)
    if "auc low" in present:
        heads.insert(1, "a release's 95 %")
    return Sheet(title, ["row", "epsilon", *heads], rows, below)


def _cell(value: Spread | None, digits: int) -> str:
    if value is None:
        return ""
    mean, deviation = (f"{part:.{digits}f}" for part in value)
    return mean if math.isnan(value[1]) else f"{mean} ± {deviation}"


def _targets(cohort: str, cells: Cells, failures: dict[tuple[str, float | None], str]) -> Sheet:
    names = list(dict.fromkeys(row for row, epsilon in (*cells, *failures) if epsilon is not None))
    rows = []
    for target in targets_of(cohort, cells):
        sign = "at most" if target.at_most else "at least"
        verdicts = []
        for row in names:
            cell = row, target.epsilon
            value = cells.get(cell, {}).get(target.score)
            margin = None if value is None else target.margin(value[0])
            missing = FAILED if cell in failures else ""
            verdicts.append(missing if margin is None else f"{'met' if margin >= 0 else 'missed'} {margin:+.3f}")
        name = f"{target.score} {sign} {target.bound:.3f} at epsilon {target.epsilon:g} ({target.why})"
        if any(verdicts):
            rows.append([name, *verdicts])
    title = f"{cohort}: targets, and by how much each row meets (+) or misses (-) them"
    return Sheet(title, ["target", *names], rows)

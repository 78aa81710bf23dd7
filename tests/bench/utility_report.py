"""Tables of the utility bench: a line a row and epsilon, real images as the reference, and the targets."""

from __future__ import annotations

import statistics
from typing import Any

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
    "precision": 2,
    "recall": 2,
    "coverage": 2,
    "ECE": 2,
    "bits": 3,
}


def cells_of(results: list[dict[str, Any]], cohort: str) -> Cells:
    """Mean and standard deviation over seeds of every score of a cohort, by row and epsilon, as the run listed them."""
    found: dict[tuple[str, float | None], list[dict[str, float]]] = {}
    for result in sorted(results, key=lambda result: result["order"]):
        if result["cohort"] == cohort:
            found.setdefault((result["row"], result["epsilon"]), []).append(result["scores"])
    return {
        cell: {name: _spread([one[name] for one in scores if name in one]) for name in scores[0]}
        for cell, scores in found.items()
    }


def _spread(values: list[float]) -> Spread:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def print_tables(results: list[dict[str, Any]]) -> None:
    """Scores, models that `best` chose, and targets, one cohort after the other."""
    console = Console(width=190)
    for cohort in dict.fromkeys(result["cohort"] for result in results):
        cells = cells_of(results, cohort)
        console.print(_scores(cohort, cells))
        chosen = [f"{r['epsilon']:g}: {r['model']}" for r in results if r["cohort"] == cohort and r["row"] == "best"]
        if chosen:
            console.print(f"what 'best' chose, by epsilon: {', '.join(sorted(chosen))}")
        if targets_of(cohort, cells):
            console.print(_targets(cohort, cells))


def _scores(cohort: str, cells: Cells) -> Table:
    present = {name for scores in cells.values() for name in scores}
    sites = sorted(name for name in present if name.startswith("auc ") and name not in NOT_SITES)
    columns = {"auc": COLUMNS["auc"], **dict.fromkeys(sites, 3), **COLUMNS}
    shown = {name: digits for name, digits in columns.items() if name in present}
    table = Table("row", "epsilon", *shown, title=f"{cohort}: mean ± standard deviation over seeds")
    for (row, epsilon), scores in cells.items():
        values = [_cell(scores.get(name), digits) for name, digits in shown.items()]
        table.add_row(row, "-" if epsilon is None else f"{epsilon:g}", *values)
    return table


def _cell(value: Spread | None, digits: int) -> str:
    return "" if value is None else f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"


def _targets(cohort: str, cells: Cells) -> Table:
    rows = list(dict.fromkeys(row for row, epsilon in cells if epsilon is not None))
    table = Table("target", *rows, title=f"{cohort}: targets, and by how much each row meets (+) or misses (-) them")
    for target in targets_of(cohort, cells):
        sign = "at most" if target.at_most else "at least"
        verdicts = []
        for row in rows:
            value = cells.get((row, target.epsilon), {}).get(target.score)
            margin = None if value is None else target.margin(value[0])
            verdicts.append("" if margin is None else f"{'met' if margin >= 0 else 'missed'} {margin:+.3f}")
        name = f"{target.score} {sign} {target.bound:.3f} at epsilon {target.epsilon:g} ({target.why})"
        if any(verdicts):
            table.add_row(name, *verdicts)
    return table

"""Tables of the utility bench: a line a row and epsilon, real images as the reference, and the targets."""

from __future__ import annotations

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("auc", "bits")


def summary(results: list[dict[str, Any]]) -> dict[tuple[str, str, float | None], dict[str, tuple[float, float]]]:
    """Mean and standard deviation over seeds of every score, by cohort, row and epsilon."""
    cells: dict[tuple[str, str, float | None], list[dict[str, float]]] = {}
    for result in sorted(results, key=lambda result: (result["epsilon"] is not None, result["epsilon"] or 0.0)):
        cells.setdefault((result["cohort"], result["row"], result["epsilon"]), []).append(result["scores"])
    return {
        cell: {name: _spread([one[name] for one in scores if name in one]) for name in scores[0]}
        for cell, scores in cells.items()
    }


def _spread(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def print_tables(results: list[dict[str, Any]]) -> None:
    """One table a cohort."""
    cells = summary(results)
    for cohort in dict.fromkeys(cell[0] for cell in cells):
        own = {cell[1:]: scores for cell, scores in cells.items() if cell[0] == cohort}
        sites = sorted({name for scores in own.values() for name in scores if name.startswith("auc ")})
        columns = [
            name for name in (COLUMNS[0], *sites, *COLUMNS[1:]) if any(name in scores for scores in own.values())
        ]
        table = Table("row", "epsilon", *columns, title=cohort)
        for (row, epsilon), scores in own.items():
            shown = "-" if epsilon is None else f"{epsilon:g}"
            table.add_row(row, shown, *(_cell(scores.get(name)) for name in columns))
        Console(width=180).print(table)


def _cell(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.3f} ± {value[1]:.3f}"

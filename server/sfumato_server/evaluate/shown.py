"""An evaluation as tables of text, for terminals and the page: one line a figure, numbers with their intervals."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from sfumato_server.evaluate.figures import FIGURES
from sfumato_server.evaluate.report import Report
from sfumato_server.evaluate.rows import Row

HEADINGS = ("", "set", "real", "set against real", "")


def cells(line: Row) -> tuple[str, ...]:
    """The five texts of a line."""
    compared = number(line.compared, line.compared_low, line.compared_high)
    against = f"{line.comparison} {compared}" if compared else ""
    return (
        line.of,
        number(line.value, line.low, line.high),
        number(line.real, line.real_low, line.real_high),
        against,
        line.note,
    )


def number(value: float | None, low: float | None, high: float | None) -> str:
    """`0.912 [0.881, 0.940]`; empty where there is no number."""
    if value is None:
        return ""
    digits = 1 if abs(value) >= 100 else 3
    interval = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{interval}"


def by_figure(report: Report) -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
    """Title, sentence and lines of each figure that was measured."""
    for name, figure in FIGURES.items():
        if own := [cells(line) for line in report.rows if line.figure == name]:
            yield figure.title, figure.says, own


def tables(report: Report) -> Iterator[Table]:
    """A table a figure, for a terminal."""
    for title, says, lines in by_figure(report):
        table = Table(title=title, caption=says, title_justify="left", caption_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, overflow="fold")
        for line in lines:
            table.add_row(*line)
        yield table

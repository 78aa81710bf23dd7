"""The status board on a terminal: stage, round, each site's state, epsilon spent of the budget, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.command_line import console
from sfumato_server.status.board import read_board

_COLOURS = {"done": "green", "online": "cyan", "working": "yellow", "refused": "red", "lost": "red", "absent": "dim"}


def render(status: dict[str, Any] | None) -> Group | Text:
    """One frame."""
    if status is None:
        return Text("starting ...", style="dim")
    rounds = f" round {status['round']} of {status['rounds']}" if status["rounds"] > 1 else ""
    head = Text.assemble((f"study {status['study']}  ", "bold"), (f"{status['stage']}{rounds}", "bold cyan"))
    table = Table.grid(padding=(0, 3))
    for site, state in sorted(status["sites"].items()):
        table.add_row(Text(site), Text(state, style=_COLOURS.get(state, "")))
    left = f"about {status['left_s']} s left" if status["left_s"] is not None else "time left not known yet"
    foot = Text(f"{_spent_line(status)}   {status['elapsed_s']:.0f} s elapsed, {left}")
    chosen = [Text(f"the choice: {status['chosen']}", style="bold")] if status.get("chosen") else []
    return Group(head, table, foot, *chosen, *_sheet_lines(status.get("sheet")))


def _spent_line(status: dict[str, Any]) -> str:
    if not status["private"]:
        return "weights leave without differential privacy"
    spent = f"epsilon {epsilon_text(status['epsilon_spent'], 2)} of {status['epsilon_budget']:g}"
    return f"{spent} at delta {status['delta']:g} (patient, add/remove)"


def _sheet_lines(sheet: dict[str, Any] | None) -> list[Text]:
    """The newest contact sheet, and what is odd about it."""
    if sheet is None:
        return []
    line = Text(f"newest sheet: sheets/{sheet['file']}   {sheet_figures(sheet)}", style="dim")
    return [line, Text(sheet["remark"], style="bold red")] if sheet["remark"] else [line]


def sheet_figures(sheet: dict[str, Any]) -> str:
    """A sheet's figures in one line, beside the spectral model's."""
    return (
        f"spread {sheet['spread']:.1f} (spectral {sheet['usual_spread']:.1f}), "
        f"clamped {sheet['clamped']:.1%} ({sheet['usual_clamped']:.1%}), "
        f"mean image off by {sheet['distance']:.1f} grey levels"
    )


@contextmanager
def live_status(path: Path) -> Iterator[Callable[[], None]]:
    """Show the board while the body runs; off a terminal, one line each time an exchange ends."""
    if not console.is_terminal:
        seen = 0

        def line() -> None:
            nonlocal seen
            status = read_board(path)
            exchanges = status["exchanges"] if status else []
            for item in exchanges[seen:]:
                spent = _spent_line(status) if status else ""
                sites = ", ".join(f"{site} {state}" for site, state in item["sites"].items())
                number = f" {item['round']}/{item['rounds']}" if item["rounds"] > 1 else ""
                console.print(f"{item['stage']}{number}: {item['seconds']:.1f} s  {sites}  {spent}", markup=False)
            seen = len(exchanges)

        yield line
        line()
        return
    with Live(render(None), console=console, refresh_per_second=2) as live:

        def refresh() -> None:
            live.update(render(read_board(path)))

        yield refresh
        refresh()

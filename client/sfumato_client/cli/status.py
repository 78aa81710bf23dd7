"""`sfumato-site status`: whether the site is joined, what it works on, what patients paid, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sfumato_client.cli.home import Home, Study
from sfumato_client.site.telling import (
    connection_line,
    cost_line,
    leaves,
    paid_line,
    question,
    study_line,
    when,
    working_line,
)
from sfumato_common.command_line import AsJson, Once, duration_text, show_status, step_text
from sfumato_common.hints import with_home

_COLOURS = {"joined": "green", "connecting": "yellow", "failed": "red", "killed": "red", "no answer": "red"}
_BAR_COLUMNS = 40


def status(home: Home, study: Study = "", once: Once = False, as_json: AsJson = False) -> None:
    """Show what this site does, for its own people; live, or once, also when it does not run."""
    from sfumato_client.site.overview import overview

    show_status(partial(overview, home, study), render, once, as_json)


def render(view: Mapping[str, Any]) -> Group:
    """One frame of an `overview`."""
    since = f" for {duration_text(view['now'] - view['since'])}" if view["since"] else ""
    heard = f", coordinator heard {duration_text(view['now'] - view['heard'])} ago" if view["heard"] else ""
    state = f"{view['state']}{since}{heard if view['state'] == 'joined' else ''}"
    head = Text.assemble((f"site {view['site']}  ", "bold"), (state, _COLOURS.get(view["state"], "dim")))
    told = f"progress is {view['progress']}: 'progress' of the policy"
    studies = [Text(f"{study_line(study)}\n  {cost_line(study)}") for study in view["studies"]]
    todo = [Text.assemble(("next: ", "bold"), with_home(line)) for line in view["next"]]
    paid = f"{paid_line(view)}; {view['unsettled']} charges not settled"
    last = [Text(paid), Text(told, style="dim"), *todo]
    return Group(head, Text(connection_line(view), style="dim"), *_work(view), *studies, *last)


def _work(view: Mapping[str, Any]) -> list[RenderableType]:
    """The question under way with its bar, and what leaves when; or what became of the last one."""
    shown: list[RenderableType] = [Text(work_line(view))]
    work = view["work"]
    if work is None or work["state"] != "working":
        return shown
    if work["step"] is not None and work["steps"]:
        bar, done, steps = Table.grid(padding=(0, 2)), work["step"], work["steps"]
        bar.add_row(ProgressBar(steps, done, width=_BAR_COLUMNS), step_text(done, steps, work["kind"]))
        shown.append(bar)
    return [*shown, Text(f"leaves {when(view)}: {leaves(view)}")]


def work_line(view: Mapping[str, Any]) -> str:
    """The last question: what it asks, how far the work is, or what became of it."""
    work = view["work"]
    if work is None:
        return "nothing was asked yet"
    if line := working_line(view):
        return line
    code = f" ({work['code']})" if work["code"] else ""
    ago, took = duration_text(view["now"] - work["ended"]), duration_text(work["ended"] - work["began"])
    return f"last asked: {question(work)}; {work['state']}{code} {ago} ago, after {took}"

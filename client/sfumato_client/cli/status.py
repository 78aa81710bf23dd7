"""`sfumato-site status`: whether the site is joined, what it works on, what patients paid, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.console import Group
from rich.text import Text

from sfumato_client.cli.home import Home, Study
from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.command_line import AsJson, Once, duration_text, show_status

_COLOURS = {"joined": "green", "connecting": "yellow", "failed": "red", "killed": "red", "no answer": "red"}


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
    budget = view["budget"]
    paid = (
        f"a patient has paid epsilon {epsilon_text(view['epsilon'])} of {budget['epsilon']:g} at delta "
        f"{budget['delta']:g}, over all studies; {view['unsettled']} charges not settled"
    )
    told = f"progress is {view['progress']}: 'progress' of the policy"
    studies = [Text(study_line(study)) for study in view["studies"]]
    todo = [Text.assemble(("next: ", "bold"), line) for line in view["next"]]
    return Group(head, Text(work_line(view)), *studies, Text(paid), Text(told, style="dim"), *todo)


def work_line(view: Mapping[str, Any]) -> str:
    """The last question: what it asks, how far the work is, or what became of it."""
    work = view["work"]
    if work is None:
        return "nothing was asked yet"
    rounds = f", round {work['round']} of {work['rounds']}" if work["rounds"] > 1 else ""
    what = f"{work['stage'] or work['kind']}{rounds}"
    if work["state"] in ("working", "launched", "hung", "killed"):
        steps = f", step {work['step']} of {work['steps']}" if work["step"] is not None else ""
        took = duration_text((work["ended"] or view["now"]) - work["began"])
        sign = f", last sign of work {duration_text(view['now'] - work['sign'])} ago"
        return f"{work['state']}: {what}{steps}, since {took}{sign}"
    code = f" ({work['code']})" if work["code"] else ""
    ago = duration_text(view["now"] - work["ended"])
    return f"last asked: {what}; {work['state']}{code} {ago} ago, after {duration_text(work['ended'] - work['began'])}"


def study_line(study: Mapping[str, Any]) -> str:
    """One accepted study: rounds paid for, and the parts of its release."""
    stages = ", ".join(f"{row['stage']} {row['done']}/{row['rounds']}" for row in study["stages"])
    parts = ", ".join(f"{part} {state}" for part, state in study["release"].items())
    return f"study {study['study']}: {stages}; release: {parts}"

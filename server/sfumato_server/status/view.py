"""A study on a terminal: stages, sites, epsilon, bytes, time left, and what is to be done next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.command_line import console, duration_text, step_text
from sfumato_common.hints import with_home
from sfumato_common.progress import Lines, say_dated
from sfumato_server.status.advice import joining
from sfumato_server.status.published import version_lines

log = logging.getLogger(__name__)
_COLOURS = {
    "done": "green", "connected": "cyan", "working": "yellow", "refused": "red", "failed": "red", "silent": "red",
    "review": "magenta", "revoked": "red", "absent": "dim", "not known": "dim", "not enrolled": "dim",
    "now": "bold cyan", "begun": "yellow", "to come": "dim",
}  # fmt: skip
_WORDS = {"review": "its stewards have the release"}
_MOST_ROWS, _BAR_COLUMNS, _BEAT_SECONDS = 30, 40, 60.0
# states of sites that are said where there is no terminal: others are told by the exchange that ends
_TOLD = ("connected", "silent", "refused", "failed", "review", "revoked")
# phases in which it matters when a site was heard; a study without Flower has started none
_GOING = ("running", "publishing", "not started")


def render(view: Mapping[str, Any]) -> Group:
    """One frame of an `overview`."""
    head = Text.assemble((f"study {view['study']}  ", "bold"), (headline(view), "bold cyan"))
    foot = Text(f"{spent_line(view)}   {traffic_line(view)}")
    chosen = [Text(f"the choice: {view['chosen']}", style="bold")] if view["chosen"] else []
    todo = [Text.assemble(("next: ", "bold"), with_home(line)) for line in view["next"]]
    released, versions = (
        [Text(line) for line in release_lines(view)],
        [Text(x, style="dim") for x in version_lines(view)],
    )
    said = [*released, foot, *chosen, *_sheet_lines(view["sheet"]), *versions, *todo]
    return Group(head, _stages(view), _bar(view), _sites(view), *said)


def headline(view: Mapping[str, Any]) -> str:
    """What goes on: the stage and its round while the study runs, else how it stands, and where it ended."""
    rounds = f", round {view['round']} of {view['rounds']}" if view["rounds"] > 1 else ""
    if view["phase"] == "running" and view["stage"] == "join":
        return f"join: {joining(view)}"
    if view["phase"] == "publishing" and (work := view["publishing"]):
        return f"publishing: {publishing_line(work)}"
    if view["phase"] == "running" or (view["phase"] == "not started" and view["stage"]):
        return f"{view['stage'] or 'starting'}{rounds}"
    cut = view["phase"] in ("killed", "interrupted") and view["stage"] not in ("", "completed", "stopped")
    return f"{view['phase']} in {view['stage']}{rounds}" if cut else str(view["phase"])


def publishing_line(work: Mapping[str, Any]) -> str:
    """How far checking packages, or writing the set, is."""
    left = f", about {duration_text(work['left_s'])} left" if work["done"] < work["total"] else ""
    return f"{work['what']}, {work['done']} of {work['total']} images{left}"


def share_done(view: Mapping[str, Any]) -> float:
    """How much of the study is done, 0 to 1: by rounds, each step of its way counting as one round of a stage."""
    done, rounds = (sum(row[key] for row in view["stages"]) for key in ("done", "rounds"))
    return float(done / rounds)


def _stages(view: Mapping[str, Any]) -> Text:
    """All stages in one line, each with its rounds."""
    line = Text()
    for row in view["stages"]:
        rounds = f" {row['done']}/{row['rounds']}" if row["rounds"] > 1 else ""
        line.append(f"{'' if not line else '  >  '}", "dim")
        now = " (now)" if row["state"] == "now" else ""
        line.append(f"{row['stage']}{rounds}{now}", _COLOURS[row["state"]])
    return line


def _bar(view: Mapping[str, Any]) -> Table:
    """How much of the study is done, and time left."""
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(1.0, share_done(view), width=_BAR_COLUMNS), f"{share_done(view):.0%}, {time_line(view)}")
    return bar


def _sites(view: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 3))
    for name, site in list(sorted(view["sites"].items()))[:_MOST_ROWS]:
        spent = f"epsilon {epsilon_text(site['epsilon'], 2)}" if view["private"] else ""
        state = Text(site_words(site, view), style=_COLOURS.get(site["state"], ""))
        table.add_row(Text(name), state, Text(spent, style="dim"))
    if len(view["sites"]) > _MOST_ROWS:
        table.add_row(Text(f"and {len(view['sites']) - _MOST_ROWS} more: --json has all", style="dim"))
    return table


def site_words(site: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    """A site in words: its state, for how long, its step where it tells that, and when it was last heard."""
    words, now = _WORDS.get(site["state"], str(site["state"])), view["now"]
    if said := site["code"] or site["note"]:
        words += f" ({said})"
    if view["phase"] not in _GOING:
        return words
    if site["since"] and site["state"] in ("working", "review", "silent", "done"):
        words += f" for {duration_text(now - site['since'])}"
    if site["step"] is not None:
        words += f", {step_text(site['step'], site['steps'], view['stage'])}"
    if site["heard"] and site["state"] in ("working", "review", "connected", "done"):
        words += f", heard {duration_text(now - site['heard'])} ago"
    return words


def release_lines(view: Mapping[str, Any]) -> list[str]:
    """How the parts of every release stand, a line a site, once one is under way."""
    rows = {site: parts for site, parts in sorted(view["releases"].items()) if set(parts.values()) != {"to come"}}
    return [f"release of {site}: {', '.join(f'{part} {state}' for part, state in rows[site].items())}" for site in rows]


def spent_line(view: Mapping[str, Any]) -> str:
    """What a patient has paid at most, by the plan's arithmetic."""
    if not view["private"]:
        return "weights leave without differential privacy"
    spent = f"epsilon {epsilon_text(view['epsilon_spent'], 2)} of {view['epsilon_budget']:g}"
    return f"{spent} at delta {view['delta']:g} (patient, add/remove)"


def traffic_line(view: Mapping[str, Any]) -> str:
    """Bytes of arrays to and from the sites; packages are not among them."""
    return f"{view['bytes_down'] / 1e6:.1f} MB down, {view['bytes_up'] / 1e6:.1f} MB up"


def time_line(view: Mapping[str, Any]) -> str:
    """How long the run took, and what is left by the median of its exchanges so far."""
    elapsed = f"{duration_text(view['elapsed_s'])} elapsed"
    if view["phase"] != "running":
        return elapsed
    left = f"about {duration_text(view['left_s'])} left" if view["left_s"] is not None else "time left not known yet"
    return f"{elapsed}, {left}"


def _sheet_lines(sheet: Mapping[str, Any] | None) -> list[Text]:
    """The newest contact sheet, and what is odd about it."""
    if sheet is None:
        return []
    line = Text(f"newest sheet: sheets/{sheet['file']}   {sheet['figures']}", style="dim")
    return [line, Text(sheet["remark"], style="bold red")] if sheet["remark"] else [line]


def told(view: Mapping[str, Any]) -> dict[str, str]:
    """Facts of a study that is under way, each a line, for where there is no terminal."""
    facts = {"phase": f"study {view['study']}: {headline(view)}"}
    if view["phase"] == "publishing" and (work := view["publishing"]):
        facts["phase"] = f"study {view['study']}: publishing: {work['what']}"
    if view["phase"] == "running" and view["stage"] == "join" and view["here"] < len(view["sites"]):
        facts["phase"] = f"study {view['study']}: join"  # what is to be done says who is here
    for name, site in sorted(view["sites"].items()):
        if site["state"] in _TOLD:
            code = f" ({site['code']})" if site["code"] else ""
            facts[f"site {name}"] = f"{name}: {_WORDS.get(site['state'], site['state'])}{code}"
    todo = [line for line in view["next"] if not line.startswith("nothing")]
    return facts | {f"next {number}": f"next: {line}" for number, line in enumerate(todo)}


def beat_line(view: Mapping[str, Any]) -> str:
    """How it stands, with its clocks: a sign of life inside a long exchange."""
    sites = ", ".join(
        f"{name} {site_words(site, view)}" for name, site in list(sorted(view["sites"].items()))[:_MOST_ROWS]
    )
    return f"{headline(view)}: {time_line(view)}; {sites}"


@contextmanager
def live_status(read: Callable[[], Mapping[str, Any]]) -> Iterator[Callable[[], None]]:
    """Show the overview that `read` gives while the body runs.

    Off a terminal a line each time an exchange ends, or something happens, and one a minute inside a long exchange.
    """
    if not console.is_terminal:
        seen, lines = 0, Lines(_say, _BEAT_SECONDS)
        last: dict[str, Any] = {}

        def line() -> None:
            nonlocal seen, last
            view = read()
            for item in view["exchanges"][seen:]:
                what = {key: item[key] for key in ("stage", "round", "sites")}
                if what != last:  # a release is asked for again and again
                    _say(_exchange_line(item, view))
                last = what
            seen = len(view["exchanges"])
            lines.tell(told(view), lambda: beat_line(view))

        yield line
        line()
        return
    with Live(render(read()), console=console, refresh_per_second=2) as live:

        def refresh() -> None:
            live.update(render(read()))

        yield refresh
        refresh()


def _exchange_line(item: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    sites = ", ".join(f"{site} {state}" for site, state in item["sites"].items())
    number = f" {item['round']}/{item['rounds']}" if item["rounds"] > 1 else ""
    return f"{item['stage']}{number}: {item['seconds']:.1f} s  {sites}  {spent_line(view)}"


def _say(line: str) -> None:
    say_dated(line, log)

"""The live page of a study: one HTML file in the coordinator's home, what goes on and the contact sheets of all rounds.

It is rewritten every few seconds, needs no script and no network, and reloads itself while the study runs. Like the
sheets it is for the eye: whatever goes wrong with it is logged and never stops a study.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.files import write_atomic
from sfumato_common.pages import html_templates
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays
from sfumato_server.status.admitted import admitted_sheets
from sfumato_server.status.board import StatusBoard
from sfumato_server.status.overview import PAGE, overview, sheet_figures
from sfumato_server.status.published import version_lines
from sfumato_server.status.sheets import FOLDER, RoundSheets, read_sheets
from sfumato_server.status.view import headline, site_words, time_line, traffic_line

log = logging.getLogger(__name__)
_ENDED = ("completed", "stopped")


class LivePage:
    """Who watches a study (`rounds.progress`): the board and, after every round, a sheet and the page `live.html`."""

    def __init__(self, home: Path, plan: Plan, board: StatusBoard) -> None:
        self._root, self._plan, self._board = home, plan, board
        self._sheets = RoundSheets(home, plan)
        self.write()

    def site(self, name: str, state: str, code: str = "") -> None:
        """See `StatusBoard`."""
        self._board.site(name, state, code)

    def resume(self, stage: str, rounds: int) -> None:
        """See `StatusBoard`."""
        self._board.resume(stage, rounds)

    def follow(self, plan: Plan) -> None:
        """See `StatusBoard`."""
        self._plan = plan
        self._board.follow(plan)

    def begin(self, stage: str, number: int, rounds: int) -> None:
        """See `StatusBoard`."""
        self._board.begin(stage, number, rounds)

    def end(self, note: dict[str, Any]) -> None:
        """See `StatusBoard`."""
        self._board.end(note)

    def choose(self, model: str) -> None:
        """See `StatusBoard`."""
        self._board.choose(model)

    def model(self, stage: str, number: int, released: Arrays) -> None:
        """The round is done: show the model of `stage` as it would be released after it."""
        self._board.finish_round(stage, number)
        sheet = self._sheets.draw(stage, number, released)
        if sheet is not None:
            self._board.sheet(asdict(sheet))
        self.write()

    def write(self) -> None:
        """Write the board, and the page as things stand."""
        self._board.write()
        write_page(self._root, self._plan)


def write_page(root: Path, plan: Plan) -> None:
    """Write the page of the home `root`; the coordinator's own process does so too, while nothing else happens."""
    try:
        write_atomic(root / PAGE, page_text(root, plan))
    except Exception:
        log.exception("the live page was not written; the study goes on")


def page_text(root: Path, plan: Plan) -> str:
    """The page as things stand, from the files of the home."""
    environment = html_templates("sfumato_server.status")
    view = overview(root, plan)
    words = {name: site_words(site, view) for name, site in sorted(view["sites"].items())}
    return environment.get_template("live.html.j2").render(
        view=view,
        headline=headline(view),
        spent=epsilon_text(view["epsilon_spent"]),
        spent_by={name: epsilon_text(site["epsilon"], 2) for name, site in view["sites"].items()},
        lines=[traffic_line(view), time_line(view)],
        words=words,
        running=view["phase"] in ("running", "publishing") or (view["phase"] == "not started" and _goes_on(view)),
        folder=FOLDER,
        admitted=admitted_sheets(root, plan),
        stages=_by_stage(root, plan),
        versions=version_lines(view),
    )


def _goes_on(view: dict[str, Any]) -> bool:
    return view["stage"] not in ("", *_ENDED)


def _by_stage(root: Path, plan: Plan) -> list[tuple[str, list[dict[str, Any]]]]:
    """(stage, its sheets with their figures), in the order of the plan."""
    rows = [
        {**asdict(sheet), "figures": sheet_figures(asdict(sheet))} for sheet in read_sheets(root, plan.study_digest)
    ]
    groups = [(stage.kind, [row for row in rows if row["stage"] == stage.kind]) for stage in plan.stages]
    return [(kind, sheets) for kind, sheets in groups if sheets]

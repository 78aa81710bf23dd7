"""The live page of a study: one HTML file in the coordinator's home, with the contact sheets of all rounds in order.

It is rewritten after every round, needs no script and no network, and reloads itself while the study runs. Like the
sheets it is for the eye: whatever goes wrong with it is logged and never stops a study.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.files import write_atomic
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays
from sfumato_server.status.board import StatusBoard
from sfumato_server.status.sheets import FOLDER, RoundSheets
from sfumato_server.status.view import sheet_figures

log = logging.getLogger(__name__)
PAGE = "live.html"
_ENDED = ("completed", "stopped")


class LivePage:
    """Who watches a study (`rounds.progress`): the board and, after every round, a sheet and the page `live.html`."""

    def __init__(self, home: Path, plan: Plan, board: StatusBoard) -> None:
        self._path, self._plan, self._board = home / PAGE, plan, board
        self._sheets = RoundSheets(home, plan)
        self.write()

    def site(self, name: str, state: str) -> None:
        """See `StatusBoard`."""
        self._board.site(name, state)

    def resume(self, stage: str, rounds: int) -> None:
        """See `StatusBoard`."""
        self._board.resume(stage, rounds)

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
        """Show the model of `stage` as it would be released after round `number`."""
        sheet = self._sheets.draw(stage, number, released)
        if sheet is not None:
            self._board.sheet(asdict(sheet))
        self.write()

    def write(self) -> None:
        """Write the page as things stand."""
        try:
            environment = Environment(
                loader=PackageLoader("sfumato_server.status"),
                autoescape=True,
                undefined=StrictUndefined,
                trim_blocks=True,
                lstrip_blocks=True,
            )
            now = self._board.now()
            page = environment.get_template("live.html.j2").render(
                plan=self._plan,
                plan_hash=self._plan.digest,
                status=now,
                spent=epsilon_text(now["epsilon_spent"]),
                running=now["stage"] not in _ENDED,
                folder=FOLDER,
                stages=self._by_stage(),
            )
            write_atomic(self._path, page)
        except Exception:
            log.exception("the live page was not written; the study goes on")

    def _by_stage(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """(stage, its sheets with their figures), in the order of the plan."""
        rows = [{**asdict(sheet), "figures": sheet_figures(asdict(sheet))} for sheet in self._sheets.sheets]
        groups = [(stage.kind, [row for row in rows if row["stage"] == stage.kind]) for stage in self._plan.stages]
        return [(kind, sheets) for kind, sheets in groups if sheets]

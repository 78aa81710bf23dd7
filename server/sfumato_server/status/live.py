"""The live page of a study: one HTML file in the coordinator's home, what goes on and the contact sheets of all rounds.

It is rewritten every few seconds, needs no network, and reloads itself while the study runs. Its one script, which the
page's own policy names by hash, tells how old it is: a page that nobody writes any more must not look like a study that
goes on. Without scripts it still says when it was written. Like the sheets it is for the eye: whatever goes wrong with
it is logged and never stops a study.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.files import write_atomic
from sfumato_common.pages import html_templates
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays
from sfumato_server.status.admitted import admitted_sheets
from sfumato_server.status.board import StatusBoard
from sfumato_server.status.overview import PAGE, overview, sheet_figures
from sfumato_server.status.published import version_lines
from sfumato_server.status.sheets import CHANGE_GAIN, FOLDER, RoundSheets, read_sheets
from sfumato_server.status.view import headline, share_done, site_words, time_line, traffic_line

log = logging.getLogger(__name__)
_ENDED = ("completed", "stopped")
# the coordinator writes every 5 s: a page that is so old is not written any more
STALE_S = 60
_CLOCK = """
const at = Number(document.body.dataset.at), going = document.body.dataset.going === "yes";
const words = s => s < 100 ? Math.round(s) + " s"
  : s < 6000 ? Math.round(s / 60) + " min" : Math.floor(s / 3600) + " h";
function tick() {
  const age = Math.max(0, Date.now() / 1000 - at);
  document.getElementById("age").textContent = ", " + words(age) + " ago";
  document.getElementById("gone").hidden = !(going && age > STALE);
}
tick();
setInterval(tick, 1000);
""".replace("STALE", str(STALE_S))
_CLOCK_HASH = base64.b64encode(hashlib.sha256(_CLOCK.encode()).digest()).decode()


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
        clock=_CLOCK,
        clock_hash=_CLOCK_HASH,
        written=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(view["now"])),
        share=share_done(view),
        report=_report(root, view),
        gain=CHANGE_GAIN,
    )


def _report(root: Path, view: dict[str, Any]) -> str:
    """The way from the page to the published set's report, as a link; '' where there is none."""
    report = Path(view["report"] or root)
    return quote(os.path.relpath(report, root.resolve())) if report.is_file() else ""


def _goes_on(view: dict[str, Any]) -> bool:
    return view["stage"] not in ("", *_ENDED)


def _by_stage(root: Path, plan: Plan) -> list[tuple[str, list[dict[str, Any]]]]:
    """(stage, its sheets with their figures), in the order of the plan."""
    rows = [
        {**asdict(sheet), "figures": sheet_figures(asdict(sheet))} for sheet in read_sheets(root, plan.study_digest)
    ]
    groups = [(stage.kind, [row for row in rows if row["stage"] == stage.kind]) for stage in plan.stages]
    return [(kind, sheets) for kind, sheets in groups if sheets]

"""`python -m sfumato_client.flower.job`: a launched job, which works on one question in the home; see `launcher.py`.

It opens no connection: its question is a file of the home, and so is what it leaves.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NoReturn

from sfumato_client.egress.pace import Pace
from sfumato_client.flower.launcher import DATABASE, END, QUESTION, SEEN
from sfumato_client.flower.ranks import ranks_of
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_common.errors import VerificationError
from sfumato_common.files import write_json
from sfumato_common.locks import LOCK
from sfumato_common.logs import start_log
from sfumato_common.protocol.frames import read_frame
from sfumato_common.protocol.messages import Request
from sfumato_common.study.plan import Plan

log = logging.getLogger(__name__)


class _AtOnce(Pace):
    """The worker that sends the answer keeps the pace, from the question's coming on; a job is over when it is done."""

    def hold(self, interval_s: float) -> None:
        """No wait."""


def main() -> None:
    """Entry point: the home and the job's folder in it."""
    parser = argparse.ArgumentParser(description="Work on one question of this site's study.")
    parser.add_argument("--home", type=Path, required=True, help="the site's home, as this machine sees it")
    parser.add_argument("--study", default="", help="which of the site's coordinators")
    parser.add_argument("--job", required=True, help="the job's folder below 'jobs'")
    parser.add_argument("--devices", type=int, default=0, help="devices that share a training step, 0 for all")
    parser.add_argument("--check-locks", action="store_true", help="only say whether locks of the home hold here")
    given = parser.parse_args()
    start_log()
    home = SiteHome(given.home, given.study)
    folder = home.link / "jobs" / given.job
    if given.check_locks:
        write_json(folder / END, look_at_locks(folder))
        return
    with (folder / QUESTION).open("rb") as file:
        frame = read_frame(file)
    if frame is None:
        raise VerificationError("the job's question is not whole; start nothing by hand")
    site = Site(home, _send_nothing, partial(ranks_of, home, given.devices), pace=_AtOnce, lost=_end)
    reply = site.handle(Request.from_config(*frame))
    write_json(folder / END, {"code": reply.code})


def look_at_locks(folder: Path) -> dict[str, str]:
    """What this machine finds of the locks that the other one holds on `folder`: 'held', or 'open'."""
    found = {"seen": (folder / SEEN).read_text(), "flock": "open", "sqlite": "open"}
    with (folder / LOCK).open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            found["flock"] = "held"
    with closing(sqlite3.connect(folder / DATABASE, timeout=0.0, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            found["sqlite"] = "held"
    return found


def _send_nothing(package: bytes, plan: Plan) -> None:
    raise VerificationError("a job sends nothing; the site's worker does")


def _end() -> NoReturn:
    raise SystemExit(1)


if __name__ == "__main__":
    main()

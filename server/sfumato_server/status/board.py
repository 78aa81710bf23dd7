"""The status board: one small JSON file that the round loop writes and every watcher (demo, terminal) reads.

It holds nothing but plan arithmetic, the state words of sites and the coordinator's own clock.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from sfumato_common.accounting.accountant import epsilon, json_epsilon
from sfumato_common.accounting.events import Event
from sfumato_common.files import write_json
from sfumato_common.study.costs import release_events, study_events
from sfumato_common.study.plan import Plan


class StatusBoard:
    """Progress of one study, rewritten atomically at every change."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._plan = plan
        self._events: list[Event] = []
        self._durations: list[float] = []
        self._started = time.time()
        self._since = self._started
        self.stages: list[dict[str, Any]] = []
        self._now: dict[str, Any] = {"stage": "join", "round": 0, "rounds": 0}
        self._sites = dict.fromkeys(plan.sites, "absent")
        self._epsilon = 0.0
        self._sheet: dict[str, Any] | None = None
        self._chosen = ""
        self._exchanges_left = sum(stage.rounds for stage in plan.stages) + 3 + bool(plan.utility)
        self.write()

    def site(self, name: str, state: str) -> None:
        """Set one site's state word: absent, online, working, done, refused, lost."""
        self._sites[name] = state
        self.write()

    def resume(self, stage: str, rounds: int) -> None:
        """`rounds` of `stage` were finished before a restart: their charge stands, their work is not to come."""
        self._exchanges_left -= rounds
        self._charge(stage, rounds)
        self.write()

    def begin(self, stage: str, number: int, rounds: int) -> None:
        """An exchange starts."""
        self._now = {"stage": stage, "round": number, "rounds": rounds}
        self._since = time.time()
        self.write()

    def end(self, note: dict[str, Any]) -> None:
        """The exchange ended; a stage's round is charged in the plan's own arithmetic."""
        took = time.time() - self._since
        self._durations.append(took)
        self._exchanges_left -= 1
        stage = self._now["stage"]
        if stage in {item.kind for item in self._plan.stages}:
            self._charge(stage, 1)
        elif stage == "make":
            self._events += [event for item in self._plan.release for event in release_events(self._plan, item)]
            self._epsilon = epsilon(self._events, self._plan.privacy.delta)
        self.stages.append({**self._now, "seconds": round(took, 2), **note})
        self.write()

    def _charge(self, stage: str, rounds: int) -> None:
        alone = self._plan.model_copy(update={"stages": [self._plan.stage(stage)]})
        self._events += study_events(alone, "train")[:rounds]
        self._epsilon = epsilon(self._events, self._plan.privacy.delta)

    def sheet(self, sheet: dict[str, Any]) -> None:
        """The newest contact sheet: its file and figures."""
        self._sheet = sheet
        self.write()

    def choose(self, model: str) -> None:
        """The choice stage chose `model` for the release."""
        self._chosen = model
        self.write()

    def finish(self, outcome: str, reason: str = "") -> None:
        """The study ended: `completed` or `stopped` with its reason."""
        self._now = {"stage": outcome, "round": 0, "rounds": 0, "reason": reason}
        self._exchanges_left = 0
        self.write()

    def write(self) -> None:
        """Write the file."""
        write_json(self._path, self.now())

    def now(self) -> dict[str, Any]:
        """What the file says."""
        left = statistics.median(self._durations) * self._exchanges_left if self._durations else None
        return {
            **self._now,
            "study": self._plan.study,
            "sites": self._sites,
            "private": self._plan.private,
            "epsilon_spent": json_epsilon(self._epsilon),
            "epsilon_budget": self._plan.privacy.epsilon,
            "delta": self._plan.privacy.delta,
            "elapsed_s": round(time.time() - self._started, 1),
            "left_s": None if left is None else round(left),
            "sheet": self._sheet,
            "chosen": self._chosen,
            "exchanges": self.stages,
        }


def read_board(path: Path) -> dict[str, Any] | None:
    """The latest status, or None before the first one."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None

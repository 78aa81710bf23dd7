"""The status board: one small JSON file that the round loop writes and every watcher (demo, terminal) reads.

It holds nothing but plan arithmetic, the state words of sites with the codes of their refusals, and the coordinator's
own clock.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sfumato_common.accounting.accountant import epsilon, json_epsilon
from sfumato_common.accounting.events import Event
from sfumato_common.files import read_object, write_json
from sfumato_common.study.costs import formal_gate_events, release_events, stage_events
from sfumato_common.study.plan import Plan

# what the round loop says of a site that an exchange leaves out
NOT_ASKED = "not-asked"
# what no waiting ends: people of the site, or of both sides, have to act first
_LASTING = frozenset({
    "bad-config", "bad-reply", "budget-exceeded", "bundle-refused", "egress-refused", "ledger-refused",
    "policy-refused", "release-refused", "revoked", "unverified-origin", "verification-failed",
})  # fmt: skip


class StatusBoard:
    """Progress of one study, rewritten atomically at every change."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._plan = plan
        # what training patients of each site were charged at most: for whatever the site was asked
        self._charged: dict[str, list[Event]] = {site: [] for site in plan.sites}
        self._paid: dict[str, dict[str, list[int]]] = {site: {} for site in plan.sites}
        self._epsilons = dict.fromkeys(plan.sites, 0.0)
        self._started = time.time()
        self._since = self._started
        self.stages: list[dict[str, Any]] = []
        self._now: dict[str, Any] = {"stage": "join", "round": 0, "rounds": 0}
        self._done = {stage.kind: 0 for stage in plan.stages}
        self._sites = dict.fromkeys(plan.sites, "absent")
        self._codes = dict.fromkeys(plan.sites, "")
        self._sites_since = dict.fromkeys(plan.sites, self._started)
        self._epsilon = 0.0
        self._sheet: dict[str, Any] | None = None
        self._chosen = ""
        paid_before = _paid_before(path, plan)
        self._recalls = bool(paid_before)
        for site, paid in paid_before.items():
            for stage, numbers in paid.items():
                self._charge(site, stage, numbers)
        self.write()

    def site(self, name: str, state: str, code: str = "") -> None:
        """Set one site's state word: absent, online, working, review, done, refused, lost; `code` says why it is lost.

        One that refused, or sent its release, and is therefore asked nothing more stays what it was.
        """
        said = self._sites[name] == "refused" or self._now["stage"] in ("make", "send")
        if code == NOT_ASKED and said and self._sites[name] != "absent":
            return
        if state == "working" and self._sites[name] == "review":
            return  # asked again, while its people have the release: that is no change
        if state == "working" and self._now["stage"] in (*self._done, "make"):
            # before it works, and once: a release is made once, however often it is asked for
            self._charge(name, self._now["stage"], [self._now["round"] if self._now["stage"] in self._done else 1])
        if self._sites[name] != state:
            self._sites_since[name] = time.time()
        self._sites[name], self._codes[name] = state, code
        self.write()

    @property
    def wanting(self) -> list[str]:
        """Sites that answer no question, however often asked, until somebody has mended what their code says."""
        return sorted(site for site, code in self._codes.items() if code in _LASTING)

    def resume(self, stage: str, rounds: int) -> None:
        """`rounds` of `stage` were finished before a restart: their work is not to come.

        Where the earlier board is gone, all sites count as charged for them.
        """
        self._done[stage] = rounds
        whole = self._plan.stage(stage)
        charges = rounds if rounds < whole.rounds else len(stage_events(self._plan, whole))
        for site in () if self._recalls else self._plan.sites:
            self._charge(site, stage, list(range(1, charges + 1)))
        self.write()

    def follow(self, plan: Plan) -> None:
        """Sites were admitted: `plan` has them. Nothing was asked of them yet."""
        for site in plan.sites.keys() - self._plan.sites.keys():
            self._charged[site], self._paid[site], self._epsilons[site] = [], {}, 0.0
            self._sites[site], self._codes[site], self._sites_since[site] = "absent", "", time.time()
        self._plan = plan
        self.write()

    def begin(self, stage: str, number: int, rounds: int) -> None:
        """An exchange starts."""
        self._now = {"stage": stage, "round": number, "rounds": rounds}
        self._since = time.time()
        self.write()

    def end(self, note: dict[str, Any]) -> None:
        """The exchange ended, which is not to say that its round did: `finish_round`."""
        took = time.time() - self._since
        self.stages.append({**self._now, "seconds": round(took, 2), **note})
        self.write()

    def finish_round(self, stage: str, number: int) -> None:
        """Round `number` of `stage` is done, and kept."""
        self._done[stage] = number
        self.write()

    def _charge(self, site: str, stage: str, numbers: list[int]) -> None:
        """Rounds of a stage, or the release ('make'), to `site`: in the plan's own arithmetic, each once."""
        known = self._paid[site].setdefault(stage, [])
        new = [number for number in numbers if number not in known]
        known += new
        if stage == "make":
            made = [event for item in self._plan.release for event in release_events(self._plan, item)]
            self._charged[site] += [*made, *formal_gate_events(self._plan)] if new else []
        else:
            events = stage_events(self._plan, self._plan.stage(stage))
            self._charged[site] += [events[number - 1] for number in new]
        self._epsilons[site] = epsilon(self._charged[site], self._plan.privacy.delta)
        self._epsilon = max(self._epsilons.values())

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
        self.write()

    def write(self) -> None:
        """Write the file."""
        write_json(self._path, self.now())

    def now(self) -> dict[str, Any]:
        """What the file says."""
        return {
            **self._now,
            "study": self._plan.study,
            "plan_hash": self._plan.study_digest,
            "sites": self._sites,
            "codes": self._codes,
            "since": {site: round(since, 1) for site, since in self._sites_since.items()},
            "began": round(self._since, 1),
            "done": self._done,
            "paid": self._paid,
            "epsilon_by_site": {site: json_epsilon(spent) for site, spent in self._epsilons.items()},
            "bytes_down": sum(item["bytes_down"] for item in self.stages),
            "bytes_up": sum(item["bytes_up"] for item in self.stages),
            "private": self._plan.private,
            "epsilon_spent": json_epsilon(self._epsilon),
            "epsilon_budget": self._plan.privacy.epsilon,
            "delta": self._plan.privacy.delta,
            "elapsed_s": round(time.time() - self._started, 1),
            "sheet": self._sheet,
            "chosen": self._chosen,
            "exchanges": self.stages,
        }


def previous_board(path: Path) -> Path:
    """Where the board of the run before is kept while another goes on."""
    return path.with_name(f"previous-{path.name}")


def _paid_before(path: Path, plan: Plan) -> dict[str, dict[str, list[int]]]:
    """What sites were asked for in earlier runs of this plan: it was paid, though its round may have failed."""
    for file in (path, previous_board(path)):
        board = read_board(file)
        if board is not None and board.get("plan_hash") == plan.study_digest:
            return {site: paid for site, paid in board.get("paid", {}).items() if site in plan.sites}
    return {}


def read_board(path: Path) -> dict[str, Any] | None:
    """The latest status, or None before the first one."""
    return read_object(path) or None

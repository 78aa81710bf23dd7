"""One simulated study: its homes below one folder, its rounds over the workers, and figures of what came out."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.generators import GENERATORS
from sfumato_common.metrics.utility import auc, score, train_classifier
from sfumato_common.protocol.messages import Reply, Request
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import Cohort, SiteToMake
from sfumato_common.types import AnyArray
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.study import pooled_images, run_study
from sfumato_server.rounds.channel import lost
from sfumato_server.rounds.draws import draw_model
from sfumato_server.simulate.channel import LocalChannel
from sfumato_server.simulate.home import enrol_local, make_coordinator, take_package
from sfumato_server.simulate.workers import Workers

# images that are drawn of each model for the figures
_DRAWN = 2000
PUBLISHED = "published"
Tell = Callable[[str, int, int], None]


@dataclass
class Simulation(LocalChannel):
    """A study of the plan's sites below `folder`; `tell` is told what is done, how much of it, and of how much."""

    folder: Path
    plan: Plan
    workers: Workers
    tell: Tell
    cohorts: dict[str, Cohort]
    packages: dict[str, int] = field(default_factory=dict)
    _asked: str = ""
    # opens the CA's key; in this process alone
    passphrase: bytes = field(default_factory=lambda: secrets.token_hex(16).encode(), repr=False)

    @property
    def at_once(self) -> int:  # type: ignore[override]
        """See LocalChannel."""
        return self.workers.at_once

    @property
    def coordinator(self) -> CoordinatorHome:
        """The coordinator's home."""
        return CoordinatorHome(self.folder / "coordinator")

    @property
    def homes(self) -> str:
        """The folder of all homes, as workers are told it."""
        return str(self.folder.relative_to(self.workers.folder) / "sites")

    def home(self, site: str) -> str:
        """A site's home, as workers are told it."""
        return f"{self.homes}/{site}"

    def set_up(self) -> None:
        """Make all homes, and enrol every site. Raises DataError where one cannot be made."""
        home = make_coordinator(self.coordinator.root, self.plan, self.passphrase)
        values = self.plan.model_dump(mode="json")

        def make(name: str) -> bytes:
            told = SiteToMake(home=self.home(name), site=name, cohort=self.cohorts[name])
            said, _ = self.workers.ask({"do": "make", "plan": values, "site": told.model_dump(mode="json")}, {})
            return str(said["request"]).encode("ascii")

        with ThreadPoolExecutor(self.at_once) as threads:
            for done, request in enumerate(threads.map(make, self.plan.sites), start=1):
                enrol_local(home.root, request, self.passphrase)
                self.tell("set-up", done, len(self.plan.sites))

    def run(self, seed: int, *, release: bool) -> dict[str, Any]:
        """Run the study; its `result.json`. Raises FederationError with the reason where it stopped."""
        run_study(self.coordinator, self, seed=seed, release=release)
        result: dict[str, Any] = json.loads(self.coordinator.result_file.read_text())
        if result["outcome"] != "completed":
            raise FederationError(result["reason"])
        return result

    def online(self) -> set[str]:
        """See Channel: all of them are here."""
        return set(self.plan.sites)

    def exchange(self, requests: Any, deadline_s: float, on_reply: Any, waited_for: Any) -> None:
        """See LocalChannel; `tell` is told of every answer."""
        answered = 0

        def note(site: str, reply: Reply) -> bool:
            nonlocal answered
            taken: bool = on_reply(site, reply)
            answered += taken
            self.tell(self._asked, answered, len(requests))
            return taken

        super().exchange(requests, deadline_s, note, waited_for)

    def answer(self, site: str, request: Request) -> Reply:
        """See LocalChannel. A site whose worker died has failed."""
        self._asked = " ".join(filter(None, [request.stage or request.kind, str(request.round or "")]))
        asked = {"do": "handle", "home": self.home(site), "message": request.to_config()}
        try:
            said, arrays = self.workers.ask(asked, request.arrays, lambda data: self._take(site, data))
        except FederationError:
            return lost("unreachable")
        return Reply.from_config(said["message"], arrays)

    def _take(self, site: str, data: bytes) -> bool:
        try:
            take_package(self.coordinator, self.plan, site, data)
        except VerificationError:
            return False
        self.packages[site] = self.packages.get(site, 0) + len(data)
        return True


def judges_of(workers: Workers, plan: Plan, cohort: Cohort) -> tuple[AnyArray, AnyArray]:
    """Images [N, S, S(, 3)] and labels [N] of a cohort that no site has."""
    told = SiteToMake(home="", site="judges", cohort=cohort)
    asked = {"do": "read", "plan": plan.model_dump(mode="json"), "site": told.model_dump(mode="json")}
    _, arrays = workers.ask(asked, {})
    return arrays["images"], arrays["labels"]


def measure(simulation: Simulation, images: AnyArray, labels: AnyArray, seed: int) -> dict[str, float]:
    """AUC by model of a classifier that saw drawn images alone, on `images` [N, S, S(, 3)] and `labels` [N] of nobody.

    Where sites sent packages, also of one that saw what they hold (`PUBLISHED`). Neither noised nor charged: the judges
    are public, or do not exist.
    """
    plan, found = simulation.plan, {}

    def judge(name: str, seen: AnyArray, shown: AnyArray) -> None:
        simulation.tell(f"judge {name}", 0, 1)
        classifier = train_classifier(plan, seen, shown, seed)
        found[name] = round(auc(score(plan, classifier, images), np.asarray(labels) > 0), 4)

    for kind in [stage.kind for stage in plan.stages if stage.kind in GENERATORS]:
        file = simulation.coordinator.checkpoints / plan.study_digest / f"{kind}-model.safetensors"
        drawn = draw_model(file, plan, "", "", "", _DRAWN, seed)
        judge(kind, drawn.images, drawn.labels)
    if simulation.packages:
        published, shown = pooled_images(simulation.coordinator.root, plan)
        # by what they show: their names, which sort the pool, are the operating system's, and no seed repeats them
        order = sorted(range(len(shown)), key=lambda at: (shown[at], published[at].tobytes()))
        judge(PUBLISHED, published[order], shown[order])
    return found

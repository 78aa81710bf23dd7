"""Sites that are trainers alone: they answer stages over a cohort of random images, or as a test has them answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.protocol.pack import array_digest
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.checkpoint import Checkpoints
from sfumato_server.rounds.deadlines import Deadlines
from sfumato_server.rounds.loop import StudyRun
from sfumato_server.rounds.receipts import Receipts

Answer = Callable[[Request], Reply | None]


def random_cohort(seed: int, size: int, patients: int = 12) -> Cohort:
    """Two images of noise a patient, of two labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2 * patients, size, size)).astype(np.uint8)
    return Cohort(images, rng.integers(0, 2, 2 * patients), np.repeat(np.arange(patients), 2))


def honest_arrays(plan: Plan, site: str, request: Request) -> dict:
    """What the site's trainer answers to a stage request."""
    number = sorted(plan.sites).index(site)
    noise, stage = TestNoise(number), plan.stage(request.stage)
    cohort = random_cohort(number, plan.image.size)
    job = StageJob(plan, site, stage, request.round, request.arrays, cohort, noise, NoiseRecorder(noise, "entry"))
    return dict(train(job))


def reply(arrays=None, status="ok", code="") -> Reply:
    return Reply(PROTOCOL, status, code, "0" * 16 if code else "", arrays or {})


@dataclass
class Answers:
    """A channel in which `others` say what a site answers instead of its trainer; None is silence."""

    plan: Plan
    others: dict[str, Answer] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    asked: list = field(default_factory=list)
    received: dict = field(default_factory=dict)

    def online(self):
        return set(self.plan.sites) - self.down

    def exchange(self, requests, deadline_s, on_reply, waited_for):
        self.asked.append([None, set(requests), set(waited_for)])
        for site in requests:
            found, taken = None, False
            while not taken:
                request = self.whole(site, requests[site])
                self.asked[-1][0] = request.kind
                found = self.others[site](request) if site in self.others else self.honest(site, request)
                taken = found is None or on_reply(site, found)

    def whole(self, site, request) -> Request:
        """The request with what it holds back, as a site that kept all of it has it."""
        kept = self.received.setdefault(site, {})
        kept |= {array_digest(name, value): value for name, value in request.arrays.items()}
        held = {name: kept[digest] for name, digest in request.held.items()}
        return dataclasses.replace(request, arrays={**request.arrays, **held}, held={})

    def honest(self, site, request) -> Reply:
        return reply(honest_arrays(self.plan, site, request) if request.kind == "stage" else {})


class Watching:
    """A progress that keeps what every exchange ended with."""

    def __init__(self):
        self.ended, self.words = [], []

    def site(self, name, state, code=""):
        self.words.append((name, state))

    def end(self, note):
        self.ended.append(note["sites"])

    def begin(self, *_):
        pass

    resume = follow = model = choose = begin


def study_run(folder, plan: Plan, channel: Answers) -> StudyRun:
    receipts = Receipts(folder / "receipts.json", plan, lambda site: ())
    run = StudyRun(plan, channel, Checkpoints(folder, plan), Watching(), 0, Deadlines.of(plan), receipts)
    run.sleep = lambda seconds: None
    return run

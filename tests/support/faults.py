"""A study in one process whose processes are killed, whose disks fill and whose messages go astray, by a schedule.

Every write that is to last (an fsync, a row of a ledger) is a step of whoever makes it: a site while it answers, the
coordinator otherwise. A schedule says at which step who is killed, or for how many steps a disk is full, and what
becomes of which message. The channel is Flower's, over a grid of this module; clocks of the rounds are its own.
"""

from __future__ import annotations

import copy
import errno
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from sfumato_client.audit.attacks import identity
from sfumato_client.ledger import book
from sfumato_client.ledger.certificate import COHORTS
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_common.accounting.events import Declared
from sfumato_common.errors import NoRoomError
from sfumato_common.protocol.flower import decode_reply, decode_request, encode
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator import flower_channel, study
from sfumato_server.coordinator.flower_channel import FlowerChannel
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Registry
from sfumato_server.pool import pool_packages
from sfumato_server.rounds import loop, patience, utility
from sfumato_server.simulate.home import take_package
from support.federations import Federation, make_federation
from support.studies import PLAN, POLICY

COORDINATOR = "coordinator"
# Flower misses the heartbeat of a killed task after so long; a node that was cut off is back after one of these
_MISSED_S, _AWAY_S = 30.0, (60.0, 600.0)
MESSAGE_FAULTS = ("question lost", "answer lost", "twice", "old one again", "cut off")
_RELEASE = [
    {"model": "spectral", "images": 6},
    {"model": "gan", "images": 6},
    {"method": "k-same", "images": 4, "encoder_steps": 2, "refinement_steps": 1, "k": 3},
]
_GATE = {**POLICY["release"]["gate"], "identity_share_limit": 1.0}


def fault_plan(quorum: int) -> dict[str, Any]:
    """Two stages, formal and declared images, and a figure."""
    federation = {"quorum": quorum, "round_deadline_s": 60, "join_deadline_s": 5}
    return {**copy.deepcopy(PLAN), "stages": PLAN["stages"][:2], "release": _RELEASE, "federation": federation}


def fault_policy() -> dict[str, Any]:
    """What allows that plan."""
    release = {**POLICY["release"], "allowed_methods": ["dp-sampling", "k-same"], "smallest_group": 2, "gate": _GATE}
    return {**POLICY, "release": release}


class Killed(BaseException):
    """`kill -9`: nothing of the process runs on."""


@dataclass(frozen=True)
class Schedule:
    """What goes wrong: whoever makes a step of `kills` dies there, its disk is full from a step of `full` for so many
    of its own steps, and a message of `messages`, counted over the study, meets what it says."""

    kills: frozenset[int] = frozenset()
    full: dict[int, int] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)

    @classmethod
    def drawn(cls, seed: int, steps: int, messages: int) -> Schedule:
        """One to six faults at random places of a study of so many steps and messages."""
        draw = random.Random(seed)
        kills, full, astray = set[int](), {}, {}
        for _ in range(draw.randint(1, 6)):
            match draw.choice(("kill", "kill", "full", "message", "message")):
                case "kill":
                    kills.add(draw.randrange(steps))
                case "full":
                    full[draw.randrange(steps)] = draw.randint(1, 12)
                case "message":
                    astray[draw.randrange(messages)] = draw.choice(MESSAGE_FAULTS)
        return cls(frozenset(kills), full, astray)

    @property
    def most_runs(self) -> int:
        """How often the coordinator may have to be run: each kill, refused write and lost message ends one run."""
        return 1 + len(self.kills) + sum(self.full.values()) + len(self.messages)


class World:
    """Clock, disks and who acts; counts the steps."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.now, self.steps, self.actor = schedule, 0.0, 0, COORDINATOR
        self._full: dict[str, int] = {}
        self.met: list[str] = []

    def step(self) -> bool:
        """Count a step of the actor; whether its disk is full. Raises Killed where the schedule says so."""
        number, self.steps = self.steps, self.steps + 1
        if number in self.schedule.kills:
            self.met.append(f"kill {self.actor}")
            raise Killed
        if number in self.schedule.full:
            self._full[self.actor] = self.schedule.full[number]
            self.met.append(f"full {self.actor}")
        left = self._full.get(self.actor, 0)
        self._full[self.actor] = max(left - 1, 0)
        return left > 0

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1.0)

    def fsync(self, descriptor: int) -> None:
        if self.step():
            raise OSError(errno.ENOSPC, "No space left on device")
        _fsync(descriptor)

    def allocate(self, *terms: int) -> None:
        if self.step():
            raise OSError(errno.ENOSPC, "No space left on device")

    def insert(self, *row: Any) -> None:
        if self.step():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
            raise error
        _insert(*row)


_fsync, _insert = os.fsync, book.insert


class FaultyGrid:
    """Flower's grid over sites of this process: a question is answered when it is pushed, unless the schedule says
    otherwise, and its answer arrives five seconds later."""

    def __init__(self, federation: Federation, world: World) -> None:
        self._federation, self._world = federation, world
        self.names = sorted(federation.sites)
        self._back: dict[str, float] = {}
        self._open: dict[str, tuple[float, Any]] = {}
        self._last: dict[str, Any] = {}

    def get_node_ids(self) -> list[int]:
        now = self._world.now
        return [node for node, site in enumerate(self.names) if self._back.get(site, 0.0) <= now]

    def push_messages(self, messages: Any) -> list[str]:
        return [self._push(self.names[node], content) for node, content in messages]

    def pull_messages(self, identifiers: list[str]) -> list[Any]:
        due = [(name, self._open[name]) for name in identifiers]
        return [_message(name, content) for name, (at, content) in due if at <= self._world.now]

    def _push(self, site: str, content: Any) -> str:
        world, number = self._world, self._federation.messages
        self._federation.messages = number + 1
        fault = world.schedule.messages.get(number, "")
        if fault:
            world.met.append(f"{fault} ({site})")
        answer, due = None, world.now + _MISSED_S
        if fault == "old one again" and site in self._last:
            self._ask(site, self._last[site])
        if fault != "question lost":
            answer = self._ask(site, content)
        if fault == "twice":
            answer = self._ask(site, content) or answer
        if fault in ("answer lost", "question lost"):
            answer = None
        if fault == "cut off":
            self._back[site] = due = world.now + _AWAY_S[number % 2]
        elif answer is not None:
            due = world.now + 5.0
        self._last[site] = content
        name = f"{site}:{number}"
        self._open[name] = (due, answer)
        return name

    def _ask(self, site: str, content: Any) -> Any:
        world = self._world
        world.actor = site
        try:
            reply = self._federation.sites[site].handle(decode_request(content))
            return encode(decode_reply(encode(reply)))
        except Killed:
            return None
        finally:
            world.actor = COORDINATOR


def _message(name: str, content: Any) -> Any:
    error = SimpleNamespace(code=1, reason="failed")
    metadata = SimpleNamespace(reply_to_message_id=name)
    return SimpleNamespace(metadata=metadata, content=content, error=error, has_error=lambda: content is None)


def make_homes(root: Path, quorum: int = 3) -> Path:
    """Homes of a study that has not begun, to be copied for each schedule."""
    make_federation(root, fault_plan(quorum), fault_policy())
    return root


def _federation(root: Path) -> Federation:
    home = CoordinatorHome(root / "coordinator")
    plan = home.plan()
    sites = {name: Site(SiteHome(root / "sites" / name), partial(_take, home, name)) for name in plan.sites}
    federation = Federation(root, plan, home, sites)
    federation.messages = 0
    return federation


def _take(home: CoordinatorHome, name: str, data: bytes, plan: Any) -> None:
    take_package(home, plan, name, data)


@dataclass(frozen=True)
class Outcome:
    """What became of a schedule: whether all sites' parts were published with their figures; runs of the coordinator;
    rows of ledgers that charge something twice; charges that brought nothing; steps, messages, and the faults met."""

    published: bool
    runs: int
    twice: int
    lost: int
    steps: int
    messages: int
    met: tuple[str, ...]
    reason: str

    @property
    def whole(self) -> bool:
        """Published, and nothing charged twice or lost."""
        return self.published and not self.twice and not self.lost


@contextmanager
def _patched(world: World) -> Iterator[None]:
    clock = SimpleNamespace(monotonic=lambda: world.now, sleep=world.sleep)
    with (
        mock.patch.object(flower_channel, "time", clock),
        mock.patch.object(loop, "time", clock),
        mock.patch.object(patience, "time", clock),
        mock.patch.object(utility, "time", clock),
        mock.patch.object(flower_channel, "Message", lambda content, dst_node_id, **_: (dst_node_id, content)),
        mock.patch.object(study, "StudyRun", partial(study.StudyRun, sleep=world.sleep)),
        mock.patch.object(os, "fsync", world.fsync),
        mock.patch.object(os, "posix_fallocate", world.allocate),
        mock.patch.object(book, "insert", world.insert),
        mock.patch.object(identity, "_STEPS", 5),
    ):
        yield


def play(homes: Path, root: Path, schedule: Schedule) -> Outcome:
    """Run a copy of `homes` in `root` by `schedule`; the coordinator is run `most_runs` times at most."""
    shutil.copytree(homes, root)
    federation, world = _federation(root), World(schedule)
    outcome, runs = "", 0
    with _patched(world):
        while outcome != "completed" and runs < schedule.most_runs:
            runs += 1
            grid = FaultyGrid(federation, world)
            nodes = {site: node for node, site in enumerate(grid.names)}
            work_s = federation.coordinator.deadlines().work_s
            channel = FlowerChannel(grid, nodes.copy, lambda: set(federation.sites), work_s)
            try:
                outcome = study.run_study(federation.coordinator, channel, classifier_steps=5)
            except (Killed, NoRoomError):
                outcome = "killed"
    return _outcome(federation, world, outcome, runs)


def _outcome(federation: Federation, world: World, outcome: str, runs: int) -> Outcome:
    plan, coordinator = federation.plan, federation.coordinator
    published, reason = outcome == "completed", ""
    if published:
        parts = {
            (shard.head.site, shard.head.part)
            for shard in pool_packages(coordinator.root, plan, Registry(coordinator.root)).shards
        }
        withheld = (federation.result()["utility"] or {})["withheld"]
        published = parts == {(site, part) for site in plan.sites for part in plan.parts_at(site)} and not withheld
        reason = f"no figure of {', '.join(withheld)}" if withheld else ""
    elif coordinator.result_file.exists():
        reason = federation.result()["reason"]
    charges = [count_charges(federation.home(site), plan, published) for site in federation.sites]
    twice, lost = (sum(counts) for counts in zip(*charges, strict=True))
    return Outcome(published, runs, twice, lost, world.steps, federation.messages, tuple(world.met), reason)


def count_charges(home: SiteHome, plan: Plan, published: bool) -> tuple[int, int]:
    """(charges that stand twice, charges that brought nothing) in the ledger of a site that every exchange counted.

    Nothing was lost where the study published: the quorum is all sites, so that each round took the answer of each.
    """
    with home.open_ledger() as ledger:
        ledger.verify()
        entries, settled = ledger.entries(), ledger.settled_results()
        twice = 0
        for cohort in COHORTS:
            events = ledger.events(cohort, plan.digest), study_events(plan, cohort)
            mine, planned = (sum(not isinstance(event, Declared) for event in found) for found in events)
            twice += max(mine - planned, 0)
    names = [(entry.purpose, entry.round) for entry in entries]
    twice = max(twice, len(names) - len(set(names)))
    return twice, sum(not published or entry.number not in settled for entry in entries)

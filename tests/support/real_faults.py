"""A study of real processes of which some are killed in mid-exchange; a supervisor starts them again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_client.site.home import ADDRESS_FILE, SiteHome
from sfumato_common.crypto.identity import load_identity
from sfumato_common.files import write_json
from sfumato_common.supervise import Child, free_port
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.publish import verify_dataset
from sfumato_server.status.board import read_board
from support.enrolment import enrol_site, keep_grant
from support.faults import count_charges, fault_plan, fault_policy
from support.federations import make_federation
from support.processes import ENVIRONMENT, PROGRAMS, command_of, running, tree
from support.studies import SITES as SITE_NAMES

# the programs of a study, by what their command lines say; a task is a fork of the worker
PROGRAM = {
    "superlink": "superlink_program",
    "rounds": "coordinator.serverapp",
    "supernode": "supernode_program",
    "worker": "flower.worker",
}
COORDINATORS = ("coordinator", "superlink", "rounds")
SITE_KINDS = ("site", "supernode", "worker", "task")
STAGES = ("hello", "spectral", "gan", "make", "send", "utility")
Kill = tuple[str, str, str]  # a stage, a kind of process, and whose


def drawn_kills(seed: int) -> list[Kill]:
    """One to three kills of random kinds at random stages, in the order of the stages."""
    draw = random.Random(seed)
    chosen = []
    for _ in range(draw.randint(1, 3)):
        kind = draw.choice(COORDINATORS + SITE_KINDS)
        whose = "coordinator" if kind in COORDINATORS else draw.choice(SITE_NAMES)
        chosen.append((draw.choice(STAGES), kind, whose))
    return sorted(chosen, key=lambda kill: STAGES.index(kill[0]))


def make_real_homes(root: Path, **federation: int) -> Path:
    """Enrolled homes below `root` of a study that counts every site in every exchange; `federation` changes its terms.

    Addresses are not in them yet.
    """
    values = fault_plan(3)
    values["release"] = values["release"][:2]  # the gate's verifier takes a minute on a busy machine
    values["federation"] = {"quorum": 3, "round_deadline_s": 150, "join_deadline_s": 240, **federation}
    made = make_federation(root, values, fault_policy())
    for site in made.sites:
        identity = load_identity(made.home(site).identity)
        keep_grant(made.coordinator.root, identity, enrol_site(made.coordinator.root, identity))
    return root


@dataclass
class RealStudy:
    """The processes of one study; `start` runs a party by its name, and `keep_running` starts those again that died."""

    root: Path
    port: int = field(default_factory=free_port)
    commands: dict[str, list[str]] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # ports that sites find the coordinator at, instead of its own
    children: dict[str, Child] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    ended: int | None = None

    def start(self, party: str) -> None:
        home = self.home(party)
        if party == "coordinator":
            command = [str(PROGRAMS / "sfumato"), "coordinator", "run", "--home", str(home), "--out", str(self.out)]
            command += ["--host", "127.0.0.1", "--port", str(self.port)]
        else:
            command = self.commands.get(party) or [str(PROGRAMS / "sfumato-site"), "run", "--home", str(home)]
            write_json(home / ADDRESS_FILE, {"coordinator": f"127.0.0.1:{self.lines.get(party, self.port)}"})
        environment = {name: value for name, value in ENVIRONMENT.items() if name != "SFUMATO_CA_PASSPHRASE"}
        environment |= self.environments.get(party, {})
        self.children[party] = Child(party, command, environment, self.log(party))
        self.runs[party] = self.runs.get(party, 0) + 1

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def coordinator(self) -> CoordinatorHome:
        return CoordinatorHome(self.root / "coordinator")

    def home(self, party: str) -> Path:
        return self.coordinator.root if party == "coordinator" else self.root / "sites" / party

    def log(self, party: str) -> Path:
        return self.root / f"{party}.log"

    def stage(self) -> str:
        return str((read_board(self.coordinator.status_file) or {}).get("stage", ""))

    def keep_running(self) -> None:
        """Start whoever died again; a coordinator that ended by itself has ended the study."""
        for party, child in self.children.items():
            code = child.poll()
            if code is None or (party == "coordinator" and self.ended is not None):
                continue
            if party == "coordinator" and code >= 0:
                self.ended = code
                continue
            self.start(party)

    def pid_of(self, kind: str, whose: str) -> int:
        """The process of that kind; 0 when there is none now."""
        if kind in ("coordinator", "site"):
            return self.children[whose].pid
        family = tree(self.children[whose].pid)
        if kind == "task":
            workers = [pid for pid in family if PROGRAM["worker"] in command_of(pid)]
            return workers[1] if len(workers) > 1 else 0
        return next((pid for pid in family if PROGRAM[kind] in command_of(pid)), 0)

    def run(self, kills: Sequence[Kill] = (), seconds: float = 600.0, look: Callable[[], None] = lambda: None) -> int:
        """Run to the coordinator's end; its exit code, -1 when it did not end in time. `kills` in their order."""
        self.left = list(kills)
        end = time.monotonic() + seconds
        for party in ("coordinator", *SITE_NAMES):
            self.start(party)
            while party == "coordinator" and not (self.home(party) / "ports.json").exists():
                assert self.children[party].poll() is None, self.said()
                time.sleep(0.2)
        while self.ended is None and time.monotonic() < end:
            due = bool(self.left) and STAGES.index(self.left[0][0]) <= _place(self.stage())
            if due and (pid := self.pid_of(*self.left[0][1:])):
                _kill(pid)
                self.left.pop(0)
            self.keep_running()
            look()
            time.sleep(0.2)
        return -1 if self.ended is None else self.ended

    def stop(self) -> None:
        for child in reversed(list(self.children.values())):
            child.stop()

    def said(self) -> str:
        logs = [self.log(party) for party in self.children]
        logs += [self.coordinator.logs / "study.log"]
        logs += [self.home(site) / "logs" / "worker.log" for site in SITE_NAMES]
        return "\n".join(f"--- {path}\n{path.read_text()[-1500:]}" for path in logs if path.exists())

    def counts(self) -> tuple[bool, int, int]:
        """(published and verified, charges that stand twice, charges that brought nothing), once all is stopped."""
        published = self.ended == 0 and bool(verify_dataset(self.out / "published", None))
        if published:
            run = json.loads((self.out / "run.json").read_text())
            published = not run["left_out"] and not run["utility"]["withheld"]
        plan = self.coordinator.plan()
        charges = [count_charges(SiteHome(self.home(site)), plan, published) for site in SITE_NAMES]
        return published, sum(twice for twice, _ in charges), sum(lost for _, lost in charges)


@contextmanager
def real_study(homes: Path, root: Path) -> Iterator[RealStudy]:
    """A study over a copy of `homes` in `root`; on leaving, every process of it is ended."""
    study = RealStudy(Path(shutil.copytree(homes, root)))
    try:
        yield study
    finally:
        study.stop()
        assert not running([child.pid for child in study.children.values()])


def _place(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else -1


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return

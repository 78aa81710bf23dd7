"""The demo: a whole federation on this machine, every party a process tree of its own with its own home folder.

Nothing in it is special-cased for the demo: it calls the two command lines that a consortium would call, with real
keys, real certificates and a real SuperLink on loopback. Ctrl-C at any time stops every process that it started.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from sfumato_common.command_line import say
from sfumato_common.count_text import count_text
from sfumato_common.crypto.enrolment import encode_grant
from sfumato_common.crypto.identity import load_identity
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.errors import ConfigError, DataError, FederationError
from sfumato_common.files import write_atomic, write_json
from sfumato_common.imaging import LARGEST_SIDE
from sfumato_common.locks import exclusive
from sfumato_common.logs import VARIABLE as LOG
from sfumato_common.logs import log_form
from sfumato_common.memory import VARIABLE, budget
from sfumato_common.strict import load_yaml, yaml_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.supervise import Child, end_descendants, free_port, run_to_end
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.demo.data import Cohort, phantom_cohort
from sfumato_server.demo.measured import show_figures
from sfumato_server.demo.plans import demo_plan
from sfumato_server.demo.review import Reviewed
from sfumato_server.demo.summary import print_summary
from sfumato_server.enrol import create_authority, enrol, load_authority
from sfumato_server.publish import verify_dataset
from sfumato_server.status.board import read_board
from sfumato_server.status.overview import overview
from sfumato_server.status.view import live_status

_SITE_PROGRAM = Path(sys.executable).parent / "sfumato-site"
_STEP_SECONDS = 2 * 3600.0  # for what hangs: on a machine with other work a step takes many minutes
_STUDY_SECONDS = 24 * 3600.0
_AT_ONCE = 3  # sites that are set up
# phantom patients a site; a large picture takes a fifth of a second to draw
_PATIENTS, _PATIENTS_AT_SIZE = 1000, 300


@dataclass
class Demo:
    """Folders, ports and children of one demo."""

    plan: Plan
    policy: Policy
    out: Path
    data: Path | None
    review: Reviewed | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    memory: int = field(default_factory=budget)
    stopping: threading.Event = field(default_factory=threading.Event)
    # opens the CA's key; in this process alone, which is the one that enrols
    passphrase: bytes = field(default_factory=lambda: secrets.token_hex(16).encode(), repr=False)

    @property
    def work(self) -> Path:
        """Homes and data of all parties."""
        return self.out / "work"

    @property
    def coordinator(self) -> CoordinatorHome:
        """The coordinator's home."""
        return CoordinatorHome(self.work / "coordinator")

    def site(self, name: str) -> Path:
        """One site's home."""
        return self.work / "sites" / name


def run_demo(
    data: Path | None,
    out: Path,
    configs: Path,
    patients: int | None,
    modality: str = "chest",
    size: int | None = None,
    review: bool = False,
) -> None:
    """Run it; leaves `published/` and `run.json` in `out`. Raises SfumatoError with one clear line.

    With `review` a person decides about the declared part of the first site.
    """
    if not _SITE_PROGRAM.exists():
        raise ConfigError(
            "the demo runs hospitals too: install 'sfumato', which is both sides, or 'sfumato-site' beside"
        )
    say("fitting the plan's noise to its budget")
    plan = demo_plan(data, configs, modality, size)
    policy, person = load_yaml(configs / "policy.yaml", Policy), Reviewed(min(plan.sites)) if review else None
    demo = Demo(plan, policy, out.resolve(), data.resolve() if data else None, person)
    signal.signal(signal.SIGTERM, _interrupt)
    with exclusive(demo.out, "a demo"):
        for stale in (demo.work, demo.out / "published"):
            shutil.rmtree(stale, ignore_errors=True)
        try:
            _set_up(demo, _cohort(demo, patients, modality, size))
            _run(demo)
        finally:
            for child in reversed(demo.children):
                child.stop()
        _summarise(demo)
        if demo.data is None:
            show_figures(demo.plan, modality, demo.work / "public", demo.out)


def _cohort(demo: Demo, patients: int | None, modality: str, size: int | None) -> Cohort:
    """Phantoms are drawn finer than the study's images, as a hospital's are."""
    if size is None:
        return Cohort(demo.data, demo.work / "data", patients or _PATIENTS, modality)
    return Cohort(demo.data, demo.work / "data", patients or _PATIENTS_AT_SIZE, modality, min(2 * size, LARGEST_SIDE))


def _set_up(demo: Demo, cohort: Cohort) -> None:
    """Keys, enrolment, data and acceptance of the plan, three sites at a time, so that two cores are never idle."""
    say(f"setting up the coordinator and {count_text(len(demo.plan.sites), 'site')}: keys, images, acceptance")
    plan_file = demo.work / "plan.yaml"
    write_atomic(plan_file, yaml_text(demo.plan.model_dump(mode="json")))
    with _timed(demo, "coordinator set-up"):
        create_authority(demo.coordinator.root, passphrase=demo.passphrase)
        write_json(demo.coordinator.plan_file, demo.plan.model_dump(mode="json"))
    with _timed(demo, "site set-up"), ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for done in [pool.submit(_set_up_site, demo, name, plan_file, cohort) for name in demo.plan.sites]:
                done.result()
        except BaseException:
            # leaving the block waits for the threads: they must find nothing left to do
            demo.stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            end_descendants()
            raise


def _set_up_site(demo: Demo, name: str, plan_file: Path, cohort: Cohort) -> None:
    home = demo.site(name)
    began = time.time()
    number = list(demo.plan.sites).index(name)
    source = phantom_cohort(cohort, name, number) if cohort.index is None else cohort.npz_source(name)
    drawn = time.time()
    policy_file = demo.work / "policies" / f"{name}.yaml"
    policy = demo.policy.model_copy(update={"site": name})
    person = demo.review if demo.review and demo.review.site == name else None
    policy = person.policy(policy) if person else policy
    write_atomic(policy_file, yaml_text(policy.model_dump(mode="json")))
    _site(demo, name, "init", "--policy", str(policy_file))
    # the demo is every party and stands for the telephone: a grant reaches the site together with the fingerprints
    grant, authority = demo.work / "grants" / f"{name}.json", load_authority(demo.coordinator.root)
    told, request = _site(demo, name, "fingerprint").splitlines()[-1], (home / "enrolment-request.json").read_bytes()
    issued = enrol(demo.coordinator.root, request, told, demo.plan.sites, passphrase=demo.passphrase)
    write_atomic(grant, encode_grant(issued, authority.signing_key))
    address = ("--coordinator", f"127.0.0.1:{demo.port}")
    _site(demo, name, "join", str(grant), *address, "--fingerprint", fingerprint(authority.public_key))
    before = time.time()
    said = _site(demo, name, "ingest", str(source), "--plan", str(plan_file))
    ingested = time.time()
    _site(demo, name, "accept", str(plan_file), "--yes")
    if person:
        person.hire(home, partial(_site, demo, name))
    if cohort.index is None:
        demo.seconds[f"{name}: draw phantom DICOM"] = round(drawn - began, 2)
    demo.seconds[f"{name}: ingest"] = round(ingested - before, 2)
    # a real site shows this to its steward alone; the demo's screen is every party's
    say(f"{name}: {said.strip().splitlines()[-1]}")


def _site(demo: Demo, name: str, *arguments: str) -> str:
    """One `sfumato-site` command in a process of its own; its one-line error becomes ours."""
    if demo.stopping.is_set():
        raise FederationError("the demo was stopped")
    home = demo.site(name)
    program = [str(_SITE_PROGRAM), *arguments, "--home", str(home)]
    code, said = run_to_end(program, _environment(demo, home), _STEP_SECONDS)
    if code:
        line = said.strip().splitlines()[-1].removeprefix("error: ") if said.strip() else f"exit code {code}"
        raise DataError(f"site '{name}', {arguments[0]}: {line}")
    return said


def _run(demo: Demo) -> None:
    """The coordinator and the sites as children; the live board until the coordinator ends."""
    programs = Path(sys.executable).parent
    command = [
        str(programs / "sfumato"), "coordinator", "run",
        "--home", str(demo.coordinator.root),
        "--out", str(demo.out),
        "--port", str(demo.port),
    ]  # fmt: skip
    if demo.review:
        home = demo.site(demo.review.site)
        demo.children.append(demo.review.open_page(home, _environment(demo, home)))
    log = demo.coordinator.logs / "coordinator.log"
    coordinator = Child("coordinator", command, _environment(demo, demo.coordinator.root), log)
    demo.children.append(coordinator)
    ports = demo.coordinator.root / "ports.json"
    with _timed(demo, "study"), live_status(partial(overview, demo.coordinator.root, demo.plan)) as refresh:
        end, nodes = time.monotonic() + _STUDY_SECONDS, False
        while coordinator.wait(0.4) is None and time.monotonic() < end:
            if ports.exists() and not nodes:
                nodes = True
                for name in demo.plan.sites:
                    node = [str(programs / "sfumato-site"), "run", "--home", str(demo.site(name))]
                    environment = _environment(demo, demo.site(name))
                    demo.children.append(Child(name, node, environment, demo.site(name) / "logs" / "site.log"))
            refresh()
    if coordinator.poll() != 0:
        said = log.read_text(errors="replace").strip().splitlines()
        raise FederationError(said[-1].removeprefix("error: ") if said else "the coordinator ended without a word")


def _environment(demo: Demo, home: Path) -> dict[str, str]:
    """A clean environment, one computing thread a process, a share of the memory: all parties are on this machine."""
    programs = Path(sys.executable).parent
    return {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "COLUMNS": "160",
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
        **({LOG: "json"} if log_form() == "json" else {}),
        VARIABLE: str(max(1, demo.memory // (1 + len(demo.plan.sites)))),
    }


def _summarise(demo: Demo) -> None:
    run_file = demo.out / "run.json"
    run: dict[str, Any] = json.loads(run_file.read_text())
    run["setup_seconds"] = demo.seconds
    write_json(run_file, run)
    published = demo.out / "published"
    # on one machine every key is at hand; elsewhere each comes from its owner
    keys = {name: load_identity(demo.site(name) / "identity").signing_public for name in run["package_bytes"]}
    checked = verify_dataset(published, load_authority(demo.coordinator.root).public_key, keys)
    print_summary(demo.plan, run, read_board(demo.coordinator.status_file) or {})
    say(f"verified: {checked.summary()}")
    say(f"published set: {published}")
    say(f"report:        {published / 'report.html'}")
    say(f"training:      {demo.coordinator.live_page}")


class _timed:  # noqa: N801 - used as a statement
    """Adds the body's wall time to the demo's durations."""

    def __init__(self, demo: Demo, name: str) -> None:
        self._demo, self._name = demo, name

    def __enter__(self) -> None:
        self._began = time.time()

    def __exit__(self, *_: object) -> None:
        self._demo.seconds[self._name] = round(time.time() - self._began, 2)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt

"""A whole study with real processes, every site behind the recording relay and under strace, its data full of canaries.

The set-up is the demo's, step by step through the same two command lines; only the addresses that a site is enrolled
with are the relay's.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.identity import load_identity
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.files import write_atomic, write_json
from sfumato_common.phantom.devices import DEVICES
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import Child, free_port, run_to_end
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import create_authority, enrol, load_authority
from support.enrolment import sealed_grant
from support.traffic.canaries import PLANTED_FOLDER, of_site, plant_headers
from support.traffic.layers import Layer, layers
from support.traffic.relay import Port, Relay
from support.traffic.scan import Scanner
from support.traffic.sockets import can_trace, traced

PROGRAMS = Path(sys.executable).parent
# three digits each, so that no cohort's count is a number that a plan, a shape or a timing is likely to hold
PATIENTS = {"alder": 151, "birch": 157, "cedar": 163}
_REQUEST = "enrolment-request.json"
_STEP_S = 120.0
_STUDY_S = 240.0


@dataclass
class Study:
    """Folders, ports and processes of one recorded study; `ports` are the relay's, by site."""

    out: Path
    plan: Plan
    policy: dict[str, Any]
    relay: Relay
    nodes: dict[str, Callable[[str], list[str]]]
    port: int = field(default_factory=free_port)
    ports: dict[str, int] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def coordinator(self) -> CoordinatorHome:
        """The coordinator's home."""
        return CoordinatorHome(self.out / "coordinator")

    def home(self, site: str) -> SiteHome:
        """A site's home; the path to it holds a canary."""
        return SiteHome(self.out / PLANTED_FOLDER / "sites" / site)

    def source(self, site: str) -> Path:
        """The folder of a site's DICOM files."""
        return self.out / PLANTED_FOLDER / "radiology" / site

    def calls(self, site: str) -> Path:
        """strace's record of what a site's processes connected to."""
        return self.out / "calls" / f"{site}.strace"

    def log(self, name: str) -> Path:
        """What a process printed."""
        return self.out / "logs" / f"{name}.log"

    def finish(self) -> int | None:
        """Wait for the coordinator's end, stop the sites, and return its exit code (None: it did not end in time)."""
        code = self.children["coordinator"].wait(_STUDY_S)
        # a site that is stopped may be in the middle of a handshake: that is no problem any more
        self.problems = list(self.relay.problems)
        for site in self.plan.sites:
            self.children[site].stop()
        return code

    def layers(self) -> list[Layer]:
        """Everything that the sites wrote on the relay's connections, and their enrolment requests."""
        found = [
            Layer(f"{site}/enrolment", (self.home(site).root / _REQUEST).read_bytes(), "text")
            for site in self.plan.sites
        ]
        for number, connection in enumerate(self.relay.connections):
            found += layers(connection, f"{connection.site}/{connection.port} {number}")
        return found

    def scanner(self) -> Scanner:
        """All canaries of all sites, those included that came into being during the run."""
        return Scanner(of_site(self.home(site), self.source(site)) for site in self.plan.sites)


@contextmanager
def recorded_study(
    out: Path,
    plan: dict[str, Any],
    policy: dict[str, Any],
    nodes: dict[str, Callable[[str], list[str]]] | None = None,
    before: Callable[[Study], None] = lambda _: None,
) -> Iterator[Study]:
    """Set everything up, call `before`, start the coordinator and all sites; on leaving, end what was started.

    `nodes` gives single sites another program than `sfumato-site run` for their node, as a function of the home folder.
    """
    home = CoordinatorHome(out / "coordinator")
    authority = create_authority(home.root)
    resolved = parse(plan, Plan, "plan")
    write_json(home.plan_file, resolved.model_dump(mode="json"))
    with Relay(authority.ca_path, authority.server_certificate_path, authority.server_key_path) as relay:
        study = Study(out, resolved, policy, relay, nodes or {})
        plan_file = out / "plan.yaml"
        write_atomic(plan_file, yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False))
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(_set_up, study, site, plan_file) for site in resolved.sites]:
                done.result()
        before(study)
        try:
            _start(study)
            yield study
        finally:
            for child in reversed(study.children.values()):
                child.stop()


def _node_command(home: str) -> list[str]:
    return [str(PROGRAMS / "sfumato-site"), "run", "--home", home]


def _set_up(study: Study, site: str, plan_file: Path) -> None:
    """Data, keys, enrolment towards the relay, ingest and acceptance of one site."""
    number = list(study.plan.sites).index(site)
    folder, home = study.source(site), study.home(site)
    write_cohort(folder, site, PATIENTS[site], 2303, sorted(DEVICES)[number % len(DEVICES)])
    plant_headers(folder)
    description = study.out / f"{site}.source.yaml"
    source = {"kind": "dicom", "folder": str(folder), "labels": str(folder / "labels.csv")}
    write_atomic(description, yaml.safe_dump(source))
    policy = study.out / f"{site}.policy.yaml"
    write_atomic(policy, yaml.safe_dump({**study.policy, "site": site}))
    _command(study, site, "init", "--policy", str(policy))
    # a fixed key: the counts of the splits are canaries and must not change from run to run
    write_atomic(home.identity / "split.key", hashlib.sha256(site.encode()).hexdigest(), mode=0o600)
    grant = study.out / f"{site}.grant.json"
    coordinator, request = study.coordinator.root, (home.root / _REQUEST).read_bytes()
    told = fingerprint(load_identity(home.identity).signing_public)
    write_atomic(grant, sealed_grant(coordinator, enrol(coordinator, request, told, study.plan.sites)))
    client = (home.identity / "site.crt", home.identity / "tls.key")
    names = {"h2": "intake", "http/1.1": "superlink"}
    study.ports[site] = study.relay.open(Port(site, study.port, names, client))
    address = ("--coordinator", f"127.0.0.1:{study.ports[site]}")
    told = fingerprint(load_authority(coordinator).public_key)
    _command(study, site, "join", str(grant), *address, "--fingerprint", told)
    _command(study, site, "ingest", str(description), "--plan", str(plan_file))
    _command(study, site, "accept", str(plan_file), "--yes")


def _command(study: Study, site: str, command: str, *rest: str) -> None:
    home = study.home(site).root
    program = [str(PROGRAMS / "sfumato-site"), command, "--home", str(home), *rest]
    code, said = run_to_end(_watched(study, site, program), _environment(home), _STEP_S)
    assert code == 0, said


def _start(study: Study) -> None:
    """The coordinator, then the sites once its ports are open."""
    root = study.coordinator.root
    port = ["--port", str(study.port)]
    coordinate = [str(PROGRAMS / "sfumato"), "coordinator", "run", "--home", str(root), "--out", str(study.out / "set")]
    study.children["coordinator"] = Child(
        "coordinator", [*coordinate, *port], _environment(root), study.log("coordinator")
    )
    end = time.monotonic() + 60
    while not (root / "ports.json").exists():
        assert time.monotonic() < end and study.children["coordinator"].poll() is None, _tail(study, "coordinator")
        time.sleep(0.2)
    for site in study.plan.sites:
        home = study.home(site).root
        command = _watched(study, site, study.nodes.get(site, _node_command)(str(home)))
        study.children[site] = Child(site, command, _environment(home), study.log(site))


def _watched(study: Study, site: str, command: list[str]) -> list[str]:
    """The command under strace where that is possible; all commands of a site add to one log."""
    if not can_trace():
        return command
    study.calls(site).parent.mkdir(parents=True, exist_ok=True)
    return traced(command, study.calls(site))


def _tail(study: Study, name: str) -> str:
    return study.log(name).read_text(errors="replace")[-3000:]


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": f"{PROGRAMS}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "COLUMNS": "160",
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
    }

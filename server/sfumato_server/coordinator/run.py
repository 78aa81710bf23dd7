"""The coordinator's composition root: intake, SuperLink, the study's run, then publishing; one at a time per home."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sfumato_common.errors import FederationError
from sfumato_common.files import write_json
from sfumato_common.locks import exclusive
from sfumato_common.proxies import keep_loopback_direct
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import Child, flower_environment, free_port
from sfumato_server.coordinator.backup import settle_copy
from sfumato_server.coordinator.door import Behind, Door
from sfumato_server.coordinator.front import FleetFront, Upstream, front_context
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.nodes import Nodes
from sfumato_server.coordinator.page import PageServer
from sfumato_server.coordinator.publishing import publish_study
from sfumato_server.coordinator.watching import watched
from sfumato_server.enrol import Authority, Registry, load_authority, require_no_passphrase
from sfumato_server.enrol.copies import note_place, require_only
from sfumato_server.intake import IntakeCredentials, IntakeServer
from sfumato_server.publish.manifest import REPORT
from sfumato_server.rounds.deadlines import GO_ON, REVIEW_HOURS, WORK_HOURS, Deadlines
from sfumato_server.rounds.superlink import (
    Control,
    SuperLinkSettings,
    code_free_bundle,
    start_superlink,
    write_secret,
)
from sfumato_server.rounds.superlink_program import LOOPBACK
from sfumato_server.status.board import previous_board
from sfumato_server.status.contacts import Contacts
from sfumato_server.status.phase import keep_phase
from sfumato_server.workers import ALONE, Where

log = logging.getLogger(__name__)
_START_SECONDS = 600.0  # a slow machine imports for minutes; a SuperLink that ended is noticed at once
# how often SuperLink or rounds may end without having lived so long between, and the pause before a new start
_MOST_ENDS, _LIVED_SECONDS, _PAUSE_SECONDS = 5, 600.0, 2.0


@dataclass(frozen=True)
class Listen:
    """Where hospitals reach the coordinator: one port, behind which the front of its SuperLink and its intake are.

    `page_port` is where its own people do, on loopback; None opens none.
    """

    host: str
    port: int
    page_port: int | None = None


def run_coordinator(
    root: Path,
    out: Path,
    listen: Listen,
    watch: Callable[[], None] = lambda: None,
    *,
    deadline_s: float | None = None,
    work_hours: float = WORK_HOURS,
    review_hours: float = REVIEW_HOURS,
    where: Where = ALONE,
    only_copy: bool = False,
) -> Path:
    """Run the home's study from first connection to published set; returns the published folder.

    `watch` is called about twice a second; `deadline_s` and the hours are of this run alone, see `Deadlines`; `where`
    says by whom shards are checked and written; with `only_copy` a person says that no other copy of the home runs.
    Raises BusyError (ports, second run), FederationError (study stopped) and ConfigError for a deadline below the
    plan's, where it could sign as the CA, and for a home that was copied or handed over.
    """
    require_no_passphrase()
    keep_loopback_direct()
    home = CoordinatorHome(root.resolve())
    plan = home.plan()
    if only_copy:
        settle_copy(home.root)
    require_only(home.root)
    deadlines = Deadlines.of(plan, deadline_s, work_hours, review_hours)
    authority = load_authority(home.root)
    registry = Registry(home.root)
    absent = sorted(
        set(plan.sites) - {name for name, record in registry.sites().items() if record.status == "enrolled"}
    )
    if plan.sites and len(plan.sites) - len(absent) < plan.federation.quorum:
        raise FederationError(f"site '{absent[0]}' of the plan is not enrolled and the quorum cannot be met; enrol it")
    # what is shown last is how the phase ended
    with (
        exclusive(home.root, f"the coordinator of study '{plan.study}'"),
        watched(home, watch),
        keep_phase(home.root) as phase,
    ):
        note_place(home.root)
        if home.status_file.exists():
            home.status_file.replace(previous_board(home.status_file))
        home.result_file.unlink(missing_ok=True)
        home.write_deadlines(deadlines)
        started = time.time()
        if plan.sites:
            _ask_sites(home, plan, registry, listen, authority)
        else:  # a later version that keeps packages alone: nobody is asked
            write_json(home.result_file, {"outcome": "completed", "exchanges": [], "choice": None, "utility": None})
        phase("publishing")
        published = publish_study(home, out, started, where)
        phase("published", report=published / REPORT)
        return published


def _ask_sites(
    home: CoordinatorHome,
    plan: Plan,
    registry: Registry,
    listen: Listen,
    authority: Authority,
) -> None:
    """Run the study to its outcome, with its intake and its page."""
    credentials = IntakeCredentials(
        authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes(), authority.ca_pem
    )
    intake = IntakeServer(home.root, plan, registry, f"{LOOPBACK}:0", credentials, home.plan)
    behind = Behind(int(intake.start().rpartition(":")[2]), free_port())
    try:
        with PageServer(home, listen.page_port) if listen.page_port else nullcontext():
            _federate(home, partial(_run_once, home, registry, listen, behind, authority))
    finally:
        intake.stop()


def _federate(home: CoordinatorHome, run_once: Callable[[], None]) -> None:
    """Run the study to its outcome: a SuperLink or a process of the rounds that dies is started again, and goes on.

    Raises FederationError when they die again and again.
    """
    ends = 0
    while True:
        began = time.monotonic()
        run_once()
        if home.result_file.exists():
            return
        ends = 1 if time.monotonic() - began > _LIVED_SECONDS else ends + 1
        if ends >= _MOST_ENDS:
            raise FederationError(f"the study's run ended without a result; 'study.log' in 'logs' says why; {GO_ON}")
        log.warning("the SuperLink or the process of the rounds ended; both are started again")
        time.sleep(_PAUSE_SECONDS)


def _run_once(
    home: CoordinatorHome,
    registry: Registry,
    listen: Listen,
    behind: Behind,
    authority: Authority,
) -> None:
    """Start SuperLink and front, register the enrolled sites' keys, run the study until an outcome or a death."""
    settings = SuperLinkSettings(
        free_port(),
        authority.ca_path,
        authority.server_certificate_path,
        authority.server_key_path,
        home.superlink_secret,
        home.root,
        home.logs / "superlink.log",
    )
    upstream = Upstream(settings.address, authority.ca_pem)
    contacts = Contacts(home.contacts_file)
    # new ones each time: a site that comes while the SuperLink is away finds nobody, and tries again
    door, address = Door((listen.host, listen.port), behind), (LOOPBACK, behind.front)
    front = FleetFront(address, front_context(authority), upstream, registry, heard=contacts.heard)
    children: list[Child] = []
    door.require_free()
    write_secret(home.superlink_secret)
    try:
        children.append(start_superlink(settings))
        nodes = Nodes(home, registry, partial(_control, home, settings, authority))
        with closing(_control(home, settings, authority)) as control:
            control.wait_until_up(children[0], _START_SECONDS)
            nodes.register(control)
            front.start()
            door.start()  # not before the nodes are known: one that comes too early gives up
            children.append(_start_study(settings, control.start_run(code_free_bundle())))
        write_json(home.root / "ports.json", {"port": door.address[1]})
        while not home.result_file.exists() and all(child.poll() is None for child in children):
            contacts.write()
            nodes.follow()
            time.sleep(0.5)
    finally:
        for child in reversed(children):
            child.stop()
        door.stop()
        front.stop()
        home.superlink_secret.unlink(missing_ok=True)


def _control(home: CoordinatorHome, settings: SuperLinkSettings, authority: Authority) -> Control:
    return Control(settings.address, authority.ca_pem, home.superlink_secret.read_bytes())


def _start_study(settings: SuperLinkSettings, run_id: int) -> Child:
    """The process of the rounds: the installed ServerApp for the run that was just started."""
    command = [
        sys.executable, "-P", "-m", "sfumato_server.coordinator.serverapp",
        "--superlink", settings.address,
        "--ca", str(settings.ca_file),
        "--secret-file", str(settings.secret_file),
        "--run-id", str(run_id),
    ]  # fmt: skip
    environment = flower_environment(settings.home, [Path(sys.executable).parent], "SFUMATO_COORDINATOR_HOME")
    return Child("study", command, environment, settings.home / "logs" / "study.log")

"""Running a site: its SuperNode and its worker under supervision, with a clear word when it cannot join."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from sfumato_client.egress.flower_hooks import require_flower
from sfumato_client.egress.progress import CONTACT_FILE, forget_failures
from sfumato_client.egress.supernode import RECONNECT_SECONDS, SuperNodeSettings, start_supernode, start_worker
from sfumato_client.flower.launcher import Launcher
from sfumato_client.site.home import SiteHome
from sfumato_client.site.node_settings import node_settings
from sfumato_client.site.restored import require_here
from sfumato_common.crypto.enrolment import require_current
from sfumato_common.errors import FederationError, SfumatoError
from sfumato_common.files import if_room, read_object, write_atomic, write_json
from sfumato_common.locks import exclusive
from sfumato_common.supervise import Child, free_port

_JOINED = "SuperNode ID:"
_PAUSE_SECONDS = 5.0
# a worker that ends so often without having lived so long between does not run on this machine
_MOST_ENDS, _LIVED_SECONDS = 5, 600.0


def run_node(
    root: Path,
    say: Callable[[str], None] = lambda _: None,
    study: str = "",
    devices: int = 0,
    launcher: str = "",
    shown: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Run the site until stopped; once it has joined, it joins again when the coordinator was restarted.

    `study` is the site's word for one of its coordinators; each has a process of its own. `devices` share a training
    step, 0 for all CUDA devices. `launcher` is the command line that starts a job for each question, '' for none.

    `say` is told when a certificate ends soon; `shown` shows how the site stands while it connects and runs.

    Raises BusyError for a second one, FederationError when a certificate has ended, when the site is not let in, or
    when the coordinator stays away.
    """
    require_flower()
    home = SiteHome(root, study)
    policy = home.policy()
    require_here(home)
    home.open_store()  # a site without images is told so here, before it joins
    _settings(home)  # so is one that was never enrolled
    if note := require_current(home.grant):
        say(note)
    what = f"site '{policy.site}'" + (f" in '{home.study}'" if home.study else "")
    with exclusive(home.link, what):
        if launcher:
            say("the launcher's first job checks that the locks of the home hold where it runs")
            Launcher(home, launcher).check_locks()
        write_atomic(home.worker_secret, secrets.token_hex(32), 0o600)
        signal.signal(signal.SIGTERM, _interrupt)
        forget_failures(home.link)
        with shown(), _keep_state(home) as tell:
            joined = 0.0
            while True:
                tell("connecting")
                said = _one_connection(_settings(home, devices, launcher), lambda: tell("joined"))
                if _JOINED in said:
                    joined = time.monotonic()
                elif not joined or time.monotonic() - joined > RECONNECT_SECONDS:
                    raise FederationError(_why(said, _met(home)))
                time.sleep(_PAUSE_SECONDS)


@contextmanager
def _keep_state(home: SiteHome) -> Iterator[Callable[[str], None]]:
    """Keep what the node does in `node.json`, for 'status'; how the body ends is kept, and raised on."""

    said: dict[str, object] = {}

    def write(state: str, reason: str = "") -> None:
        if state == said.get("state"):  # it tries again: since when counts from the first time
            return
        said.update(state=state, reason=reason, since=round(time.time(), 1))
        with if_room():
            write_json(home.node_file, said)

    try:
        yield write
    except SfumatoError as error:
        write("failed", str(error))
        raise
    except KeyboardInterrupt:
        write("stopped")
        raise


def _settings(home: SiteHome, devices: int = 0, launcher: str = "") -> SuperNodeSettings:
    return node_settings(home, free_port(), devices, launcher)


def _one_connection(settings: SuperNodeSettings, joined: Callable[[], None]) -> str:
    """Run node and worker until the node ends; what it said. When a coordinator is restarted, it forgets its nodes.

    `joined` is called when the node is let in.
    """
    start = settings.node_log.stat().st_size if settings.node_log.exists() else 0
    node, worker, waiting = start_supernode(settings), _Worker(settings), True
    try:
        while node.wait(0.5) is None:
            worker.keep_running()
            if waiting and _JOINED in _said(settings, start):
                waiting = False
                joined()
    finally:
        worker.stop()
        node.stop()
    return _said(settings, start)


def _said(settings: SuperNodeSettings, start: int) -> str:
    return settings.node_log.read_bytes()[start:].decode(errors="replace")


class _Worker:
    """The site's worker, started again when it dies."""

    def __init__(self, settings: SuperNodeSettings) -> None:
        self._settings, self._ends = settings, 0
        self._start()

    def _start(self) -> None:
        self._child: Child = start_worker(self._settings)
        self._started = time.monotonic()

    def keep_running(self) -> None:
        """Start it again when it ended. Raises FederationError when it ends again and again."""
        if self._child.poll() is None:
            return
        lived = time.monotonic() - self._started
        self._ends = 1 if lived > _LIVED_SECONDS else self._ends + 1
        if self._ends >= _MOST_ENDS:
            raise FederationError("the site's worker does not run; its log 'worker.log' in the home folder says why")
        time.sleep(_PAUSE_SECONDS)
        self._start()

    def stop(self) -> None:
        """End it and the task that it works on."""
        self._child.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _met(home: SiteHome) -> str:
    """What the node's own requests met with last, in a sentence; '' where they were answered."""
    why = read_object(home.link / CONTACT_FILE).get("why")
    return f"coordinator {home.coordinator_address()} was not reached: {why}" if why else ""


def _why(log: str, met: str = "") -> str:
    """One line for the ways in which Flower's SuperNode ends: what its own requests `met` with, or what it says."""
    if met:  # the same code of Flower stands for a key that is unknown and for a certificate of somebody else
        return met
    lowered = log.lower()
    if "code: 2004" in lowered or "exit code: 305" in lowered:
        return (
            "the coordinator does not know this site's key (have the enrolment request signed), or still holds its "
            "last connection (try again in a minute)"
        )
    if "supernode terminated gracefully" in lowered:  # nobody here asked it to: a 401 did
        return "the coordinator refuses this site's certificate or node key: they are not of one enrolment in force"
    if "certificate" in lowered and ("verify" in lowered or "ssl" in lowered):
        return "the coordinator's certificate is not the one of the enrolment; check the address and enrol again"
    return "the SuperNode ended; its log 'supernode.log' in the home folder says why"

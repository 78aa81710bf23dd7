"""Running a site: its SuperNode under supervision, one at a time per home, with a clear word when it cannot join."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

from sfumato_client.egress.supernode import RECONNECT_SECONDS, SuperNodeSettings, start_supernode
from sfumato_client.flower.task import write_task_commands
from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.enrolment import GRANT_FILES
from sfumato_common.crypto.identity import TLS_KEY, load_identity
from sfumato_common.errors import FederationError
from sfumato_common.supervise import exclusive

_LOG = "supernode.log"
_JOINED = "SuperNode ID:"
_PAUSE_SECONDS = 5.0


def run_node(root: Path) -> None:
    """Run the site until stopped; once it has joined, it joins again when the coordinator was restarted.

    Raises BusyError for a second one, FederationError when it is not let in or the coordinator stays away.
    """
    home = SiteHome(root)
    policy = home.policy()
    home.open_store()  # a site without images is told so here, before it joins
    identity = load_identity(home.identity)
    settings = SuperNodeSettings(
        superlink=home.addresses()["superlink"],
        ca_file=home.identity / GRANT_FILES["authority"],
        certificate_file=home.identity / GRANT_FILES["certificate"],
        tls_key_file=home.identity / TLS_KEY,
        node_key_file=identity.node_key_path,
        commands=home.commands,
        home=home.root.resolve(),
        log=home.logs / _LOG,
    )
    with exclusive(home.root, f"site '{policy.site}'"):
        write_task_commands(home.commands)
        signal.signal(signal.SIGTERM, _interrupt)
        joined = 0.0
        while True:
            said = _one_connection(settings)
            if _JOINED in said:
                joined = time.monotonic()
            elif not joined or time.monotonic() - joined > RECONNECT_SECONDS:
                raise FederationError(_why(said))
            time.sleep(_PAUSE_SECONDS)


def _one_connection(settings: SuperNodeSettings) -> str:
    """Run a SuperNode until it ends; what it said. A coordinator that is restarted forgets its nodes, and they end."""
    start = settings.log.stat().st_size if settings.log.exists() else 0
    node = start_supernode(settings)
    try:
        while node.wait(0.5) is None:
            pass
    finally:
        node.stop()
    return settings.log.read_bytes()[start:].decode(errors="replace")


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _why(log: str) -> str:
    """One line for the ways in which Flower's SuperNode ends."""
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
    return f"the SuperNode ended; its log '{_LOG}' in the home folder says why"

"""The site's SuperNode: mutual TLS, its own key, a clean environment and the site's task commands first on PATH."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.supervise import Child, flower_environment, free_port

# how long a SuperNode tries to reach a coordinator that went away: long enough for one to be restarted
RECONNECT_SECONDS = 900


@dataclass(frozen=True)
class SuperNodeSettings:
    """What a SuperNode needs: addresses as host:port, files as paths inside the site's home."""

    superlink: str
    ca_file: Path
    certificate_file: Path
    tls_key_file: Path
    node_key_file: Path
    commands: Path
    home: Path
    log: Path


def start_supernode(settings: SuperNodeSettings) -> Child:
    """Start this site's SuperNode; its Runtime API listens on a free loopback port."""
    programs = Path(sys.executable).parent
    command = [
        sys.executable, "-P", "-m", "sfumato_client.egress.supernode_program",
        "--site-certificate", str(settings.certificate_file),
        "--site-key", str(settings.tls_key_file),
        "--superlink", settings.superlink,
        "--root-certificates", str(settings.ca_file),
        "--auth-supernode-private-key", str(settings.node_key_file),
        "--host", "127.0.0.1",
        "--port", str(free_port()),
        "--max-wait-time", str(RECONNECT_SECONDS),
    ]  # fmt: skip
    environment = flower_environment(settings.home, [settings.commands, programs], "SFUMATO_SITE_HOME")
    return Child("supernode", command, environment, settings.log)

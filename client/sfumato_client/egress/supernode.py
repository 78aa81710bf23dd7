"""The site's SuperNode process: TLS, its own key, a clean environment and the site's task commands first on PATH."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.supervise import Child, free_port


@dataclass(frozen=True)
class SuperNodeSettings:
    """What a SuperNode needs: addresses as host:port, files as paths inside the site's home."""

    superlink: str
    ca_file: Path
    node_key_file: Path
    commands: Path
    home: Path
    log: Path


def start_supernode(settings: SuperNodeSettings) -> Child:
    """Start `flower-supernode` for this site; its Runtime API listens on a free loopback port."""
    programs = Path(sys.executable).parent
    command = [
        str(programs / "flower-supernode"),
        "--superlink", settings.superlink,
        "--root-certificates", str(settings.ca_file),
        "--auth-supernode-private-key", str(settings.node_key_file),
        "--host", "127.0.0.1",
        "--port", str(free_port()),
        "--max-wait-time", "120",
    ]  # fmt: skip
    return Child("supernode", command, _environment(settings, programs), settings.log)


def _environment(settings: SuperNodeSettings, programs: Path) -> dict[str, str]:
    """Nothing is inherited that could redirect imports; telemetry and update checks are off."""
    kept = {name: os.environ[name] for name in ("LANG", "TZ", "OMP_NUM_THREADS", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PATH": f"{settings.commands}:{programs}:/usr/bin:/bin",
        "HOME": str(settings.home),
        "FLWR_HOME": str(settings.home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONSAFEPATH": "1",
        "SFUMATO_SITE_HOME": str(settings.home),
    }

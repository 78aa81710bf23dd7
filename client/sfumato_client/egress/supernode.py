"""The site's two processes: the SuperNode, and the worker that answers its messages, which share a secret."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.proxies import proxies_of
from sfumato_common.supervise import Child, flower_environment

# how long a SuperNode tries to reach a coordinator that went away: long enough for one to be restarted
RECONNECT_SECONDS = 900
LOOPBACK = "127.0.0.1"
HOME_VARIABLE = "SFUMATO_SITE_HOME"
# which of the site's coordinators, by the site's own word, and the folder of the home that belongs to it
STUDY_VARIABLE, LINK_VARIABLE = "SFUMATO_SITE_STUDY", "SFUMATO_SITE_LINK"
LAUNCHER_VARIABLE = "SFUMATO_SITE_LAUNCHER"  # a command line that starts a job for each question
DEVICES_VARIABLE = "SFUMATO_SITE_DEVICES"  # how many devices share a training step; 0: all CUDA devices
# glibc gives large blocks back to the system and maps them anew in every step: a third of a training step's time
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
# OpenBLAS starts its threads when NumPy is imported, and a process forks safely only while it has one
SINGLE = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class SuperNodeSettings:
    """What the two need: addresses as host:port, files as paths inside the site's home, the port of their talk.

    `study` and `link` say which of the site's coordinators it is, and which folder belongs to it; `devices` share a
    training step, 0 for all CUDA devices.
    """

    coordinator: str
    ca_file: Path
    certificate_file: Path
    tls_key_file: Path
    node_key_file: Path
    secret_file: Path
    home: Path
    logs: Path
    port: int
    study: str = ""
    link: Path | None = None  # None: the home itself
    devices: int = 0
    launcher: str = ""

    @property
    def node_log(self) -> Path:
        """What the SuperNode says."""
        return self.logs / "supernode.log"

    @property
    def worker_log(self) -> Path:
        """What the worker and its tasks say."""
        return self.logs / "worker.log"


def start_supernode(settings: SuperNodeSettings) -> Child:
    """Start this site's SuperNode; its Runtime API gives tasks on loopback to whoever holds the secret."""
    command = [
        sys.executable, "-P", "-m", "sfumato_client.egress.supernode_program",
        "--site-certificate", str(settings.certificate_file),
        "--site-key", str(settings.tls_key_file),
        "--superlink", settings.coordinator,
        "--root-certificates", str(settings.ca_file),
        "--auth-supernode-private-key", str(settings.node_key_file),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(settings.secret_file),
        "--host", LOOPBACK,
        "--port", str(settings.port),
        "--max-wait-time", str(RECONNECT_SECONDS),
    ]  # fmt: skip
    return Child("supernode", command, _environment(settings), settings.node_log)


def worker_command(settings: SuperNodeSettings) -> list[str]:
    """The command line of the worker; the secret itself stands in no command line."""
    return [
        sys.executable, "-P", "-m", "sfumato_client.flower.worker",
        "--runtime", f"{LOOPBACK}:{settings.port}",
        "--secret-file", str(settings.secret_file),
    ]  # fmt: skip


def start_worker(settings: SuperNodeSettings) -> Child:
    """Start the worker that takes the SuperNode's tasks."""
    environment = {**_environment(settings), **ALLOCATOR, **SINGLE}
    return Child("worker", worker_command(settings), environment, settings.worker_log)


def _environment(settings: SuperNodeSettings) -> dict[str, str]:
    link = settings.link or settings.home
    own = flower_environment(link, [Path(sys.executable).parent], LINK_VARIABLE)
    which = {STUDY_VARIABLE: settings.study, DEVICES_VARIABLE: str(settings.devices)}
    which |= {LAUNCHER_VARIABLE: settings.launcher} if settings.launcher else {}
    return {**own, HOME_VARIABLE: str(settings.home), **which, **proxies_of(os.environ)}

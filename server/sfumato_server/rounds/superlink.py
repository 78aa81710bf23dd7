"""The coordinator's SuperLink: one process, TLS, SuperNode authentication, and its Control API on this machine only.

The only touch of Flower internals on this side (the Control API client), tied to the one pinned version. The
open-source Control API has no login (whoever reaches the port can start runs): bind to loopback or keep the port inside
a private network, and expose nothing but /v1/fleet/ to hospitals.
"""

from __future__ import annotations

import hashlib
import io
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from flwr.cli.build import build_fab_from_files

from sfumato_common import __version__
from sfumato_common.errors import FederationError
from sfumato_common.files import write_atomic
from sfumato_common.supervise import Child, end_orphan, flower_environment, require_free

_BUNDLE = f"""[project]
name = "sfumato"
version = "{__version__}"
description = "Sfumato: no code travels; sites run what they installed"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "sfumato"
fab-include = ["/README.md"]

[tool.flwr.app.components]
serverapp = "sfumato_server.coordinator.app:app"
clientapp = "sfumato_client.flower.app:app"
""".encode()
_README = b"Sfumato's app bundle carries no code: coordinator and sites run the package that they installed.\n"


def code_free_bundle() -> bytes:
    """The app bundle (FAB) that a study is started with: a description and a readme, no code."""
    content, _ = build_fab_from_files({"pyproject.toml": _BUNDLE, "README.md": _README})
    assert not [name for name in zipfile.ZipFile(io.BytesIO(content)).namelist() if name.endswith(".py")]
    return content


@dataclass(frozen=True)
class SuperLinkSettings:
    """Where the SuperLink listens and what it needs: PEM files, the coordinator's home, the log."""

    host: str
    port: int
    ca_file: Path
    certificate_file: Path
    key_file: Path
    home: Path
    log: Path


def start_superlink(settings: SuperLinkSettings) -> Child:
    """Start `flower-superlink`. Raises BusyError when the port is taken.

    One that a killed coordinator of this home left is ended first: asked to stop, it waits for its connections to
    close, which took up to a minute, and holds its inner ports until then.
    """
    record = settings.home / "superlink.pid"
    end_orphan(record, str(settings.key_file))
    require_free(settings.host, settings.port)
    programs = Path(sys.executable).parent
    command = [
        str(programs / "flower-superlink"),
        "--host", settings.host,
        "--port", str(settings.port),
        "--ssl-ca-certfile", str(settings.ca_file),
        "--ssl-certfile", str(settings.certificate_file),
        "--ssl-keyfile", str(settings.key_file),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]  # fmt: skip
    environment = flower_environment(settings.home, [programs], "SFUMATO_COORDINATOR_HOME")
    child = Child("superlink", command, environment, settings.log)
    write_atomic(record, f"{child.pid}\n")
    return child


class Control:
    """The few Control API calls that a study needs. Close it before the SuperLink stops."""

    def __init__(self, address: str, ca_pem: bytes) -> None:
        from flwr.supercore.control.control_http_client import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        self._client: Any = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=ca_pem,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    def close(self) -> None:
        """Close the HTTP connection."""
        self._client._client.close()

    def wait_until_up(self, superlink: Child, seconds: float) -> None:
        """Return when the SuperLink answers. Raises FederationError when it ends or does not answer in time."""
        from flwr.proto.control_pb2 import ListRunsRequest

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if superlink.poll() is not None:
                raise FederationError("the SuperLink ended at its start; its log says why")
            try:
                self._client.ListRuns(ListRunsRequest())
                return
            except httpx.HTTPError:
                time.sleep(0.3)
        raise FederationError(f"the SuperLink did not answer within {seconds:.0f} s; its log says why")

    def register(self, node_public_key: bytes, name: str) -> int:
        """Register a site's SuperNode key; returns its node id."""
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key
        from flwr.proto.control_pb2 import RegisterNodeRequest
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        key = load_ssh_public_key(node_public_key)
        assert isinstance(key, EllipticCurvePublicKey), "enrolment admits no other node key"
        raw = public_key_to_bytes(key)
        return int(self._client.RegisterNode(RegisterNodeRequest(public_key=raw, name=name)).node_id)

    def start_run(self, bundle: bytes) -> int:
        """Start a run of `bundle`; returns its run id."""
        from flwr.common.serde import fab_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        response = self._client.StartRun(StartRunRequest(fab=fab_to_proto(fab)))
        if not response.HasField("run_id"):
            raise FederationError("the SuperLink did not accept the study's run; its log says why")
        return int(response.run_id)

    def run_status(self, run_id: int) -> str:
        """Flower's words for a run: `pending`, `starting`, `running` or `finished:completed|failed|stopped`."""
        from flwr.proto.control_pb2 import ListRunsRequest

        run = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
        return f"{run.status.status}:{run.status.sub_status}".rstrip(":")

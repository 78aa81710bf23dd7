"""The coordinator's SuperLink: one process on loopback, TLS, SuperNode authentication, a login for its Control API.

It starts no program for a run (`--isolation process`): whoever starts one has started nothing. The study is run by
`coordinator.serverapp`, which takes the task of this coordinator's own run and no other. Hospitals reach the SuperLink
through `coordinator.front` alone. Tied to the one pinned version of Flower.
"""

from __future__ import annotations

import hashlib
import io
import secrets
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
from sfumato_server.rounds.superlink_program import LOOPBACK, control_token

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
    """The SuperLink's port on loopback and what it needs: PEM files, its secret, the coordinator's home, the log."""

    port: int
    ca_file: Path
    certificate_file: Path
    key_file: Path
    secret_file: Path
    home: Path
    log: Path

    @property
    def address(self) -> str:
        """host:port, which no other machine reaches."""
        return f"{LOOPBACK}:{self.port}"


def write_secret(path: Path) -> None:
    """A new secret of a SuperLink: 256 bits as text, readable by this user alone. It never stands in a command line."""
    write_atomic(path, secrets.token_hex(32), 0o600)


def start_superlink(settings: SuperLinkSettings) -> Child:
    """Start the SuperLink. Raises BusyError when the port is taken.

    One that a killed coordinator of this home left is ended first: asked to stop, it waits for its connections to
    close, which took up to a minute, and holds its inner ports until then.
    """
    record = settings.home / "superlink.pid"
    end_orphan(record, str(settings.key_file))
    require_free(LOOPBACK, settings.port)
    command = [
        sys.executable, "-P", "-m", "sfumato_server.rounds.superlink_program",
        "--host", LOOPBACK,
        "--port", str(settings.port),
        "--ssl-ca-certfile", str(settings.ca_file),
        "--ssl-certfile", str(settings.certificate_file),
        "--ssl-keyfile", str(settings.key_file),
        "--superexec-auth-secret-file", str(settings.secret_file),
        "--isolation", "process",
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]  # fmt: skip
    environment = flower_environment(settings.home, [Path(sys.executable).parent], "SFUMATO_COORDINATOR_HOME")
    child = Child("superlink", command, environment, settings.log)
    write_atomic(record, f"{child.pid}\n")
    return child


def node_key_bytes(node_public_key: bytes) -> bytes:
    """A SuperNode's public key as Flower writes it (PEM), from the OpenSSH line of its enrolment."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    key = load_ssh_public_key(node_public_key)
    assert isinstance(key, EllipticCurvePublicKey), "enrolment admits no other node key"
    return bytes(public_key_to_bytes(key))


class _Login:
    """Adds the Control API's token to each request."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def intercept(self, context: Any, call_next: Any) -> Any:
        context.request.headers["authorization"] = self._header
        return call_next(context)


class Control:
    """The few Control API calls that a study needs. Close it before the SuperLink stops."""

    def __init__(self, address: str, ca_pem: bytes, secret: bytes) -> None:
        from flwr.supercore.control.control_http_client import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        self._client: Any = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=ca_pem,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI"), _Login(control_token(secret))],
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
        from flwr.proto.control_pb2 import RegisterNodeRequest

        raw = node_key_bytes(node_public_key)
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

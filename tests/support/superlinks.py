"""Flower's SuperLink as it comes, the bundle of somebody who wants code to run, and clients of its APIs."""

import hashlib
import sys
from pathlib import Path

import httpx
from flwr.cli.build import build_fab_from_files

from sfumato_common.supervise import Child, flower_environment

BUNDLE_PYPROJECT = """[project]
name = "study"
version = "0.1.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "someone"

[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"
"""


def hostile_bundle(files: dict[str, str], server: str, client: str) -> bytes:
    """A bundle (FAB) with code in it; `server` and `client` name its components."""
    content = {"pyproject.toml": BUNDLE_PYPROJECT.format(server=server, client=client), "README.md": "x", **files}
    return build_fab_from_files({name: text.encode() for name, text in content.items()})[0]


def start_run_request(bundle: bytes):
    from flwr.common.serde import fab_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab

    return StartRunRequest(fab=fab_to_proto(Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})))


def start_stock_superlink(authority, port: int, home: Path, isolation: str = "subprocess") -> Child:
    """`flower-superlink` with TLS and node authentication: it unpacks and runs what a run was started with."""
    programs = Path(sys.executable).parent
    command = [
        str(programs / "flower-superlink"), "--host", "127.0.0.1", "--port", str(port),
        "--ssl-ca-certfile", str(authority.ca_path), "--ssl-certfile", str(authority.server_certificate_path),
        "--ssl-keyfile", str(authority.server_key_path),
        "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        "--isolation", isolation,
    ]  # fmt: skip
    environment = flower_environment(home, [programs], "SFUMATO_COORDINATOR_HOME")
    return Child("superlink", command, environment, home / "logs" / "superlink.log")


def stranger(kind, address: str, ca_pem: bytes):
    """A client of one of Flower's APIs (`ControlHttpClient`, `RuntimeHttpClient`) that holds no secret."""
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
    return kind.from_server_address(
        server_address=address, insecure=False, root_certificates=ca_pem, interceptors=[version]
    )


def refusal_status(call, message) -> int:
    """The HTTP status with which a call is refused; 0 when it is not."""
    try:
        call(message)
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return 0

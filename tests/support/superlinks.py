"""SuperLinks, ours and as Flower ships it; the bundle of somebody who wants code to run; clients without a secret."""

import hashlib
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from flwr.cli.build import build_fab_from_files

from sfumato_common.crypto.identity import SiteIdentity, create_identity
from sfumato_common.supervise import Child, flower_environment, free_port
from sfumato_server.coordinator.front import FleetFront, Upstream, front_context
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Authority, Registry, create_authority
from sfumato_server.rounds.superlink import Control, SuperLinkSettings, start_superlink, write_secret
from support.enrolment import enrol_site, keep_grant

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


@dataclass
class AtWork:
    """A coordinator whose SuperLink and front are up, and one enrolled site."""

    home: CoordinatorHome
    authority: Authority
    identity: SiteIdentity
    settings: SuperLinkSettings
    control: Control
    port: int
    children: list[Child] = field(default_factory=list)

    def site_context(self) -> ssl.SSLContext:
        """TLS as the site speaks it: its certificate, and trust in the coordinator's CA alone."""
        context = ssl.create_default_context(cadata=self.authority.ca_pem.decode())
        context.load_cert_chain(self.identity.folder / "site.crt", self.identity.folder / "tls.key")
        return context


def enrolled(home: CoordinatorHome, root: Path, site: str) -> SiteIdentity:
    """A new site's identity below `root`, with the coordinator's grant."""
    identity = create_identity(root / site / "identity", site)
    keep_grant(home.root, identity, enrol_site(home.root, identity))
    return identity


@contextmanager
def coordinator_at_work(root: Path, site: str = "alder", names: Sequence[str] = ()) -> Iterator[AtWork]:
    """Start it below `root` as `sfumato coordinator run` does, without a study; on leaving, end what was started.

    Its certificate is made out to `names`, too.
    """
    home = CoordinatorHome(root / "coordinator")
    authority = create_authority(home.root, names)
    identity = enrolled(home, root, site)
    write_secret(home.superlink_secret)
    settings = SuperLinkSettings(
        free_port(), authority.ca_path, authority.server_certificate_path, authority.server_key_path,
        home.superlink_secret, home.root, home.logs / "superlink.log",
    )  # fmt: skip
    upstream, port = Upstream(settings.address, authority.ca_pem), free_port()
    front = FleetFront(("127.0.0.1", port), front_context(authority), upstream, Registry(home.root))
    control = Control(settings.address, authority.ca_pem, home.superlink_secret.read_bytes())
    work = AtWork(home, authority, identity, settings, control, port, [start_superlink(settings)])
    try:
        control.wait_until_up(work.children[0], 90)
        front.start()
        yield work
    finally:
        control.close()
        for child in reversed(work.children):
            child.stop()
        front.stop()

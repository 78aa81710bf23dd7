"""Opens and closes the intake's port: TLS with client certificates, no port shared, bounded work."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from sfumato_common.errors import BusyError
from sfumato_common.study.plan import Plan
from sfumato_server.enrol.registry import Registry
from sfumato_server.intake.admission import package_path
from sfumato_server.intake.calls import KINDS, Calls
from sfumato_server.intake.service import LARGEST_CHUNK, IntakeService

# beyond one call of each kind for every site
SPARE_WORKERS = 8
# what a study that sites may join has room for beyond those of its start
LATER_SITES = 32
# a connection that has not finished its handshake, or on which nothing is asked, is closed after so many seconds
HANDSHAKE_S, IDLE_CONNECTION_S = 10, 60


@dataclass(frozen=True)
class IntakeCredentials:
    """What the server shows and what it trusts, PEM: its key and certificate, the CA that signs the sites."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    ca_pem: bytes


class IntakeServer:
    """Starts and stops the service. `address` is host:port; port 0 takes a free one, see `start`.

    `current` is the plan as it stands, with sites that were admitted since.
    """

    def __init__(
        self,
        home: Path,
        plan: Plan,
        registry: Registry,
        address: str,
        credentials: IntakeCredentials,
        current: Callable[[], Plan] | None = None,
    ) -> None:
        self._home, self._plan, self._registry, self._current = home, plan, registry, current
        self._address, self._credentials = address, credentials
        self._server: Any = None
        self._calls: Calls | None = None

    def start(self) -> str:
        """Open the port and return host:port as bound. Raises BusyError when the port is in use."""
        host, _, wanted = self._address.rpartition(":")
        if not _bindable(host.strip("[]"), wanted):
            raise self._busy()
        service = IntakeService(self._home, self._plan, self._registry, self._current)
        workers = KINDS * (len(self._plan.sites) + (LATER_SITES if self._plan.joining else 0)) + SPARE_WORKERS
        server = grpc.server(
            ThreadPoolExecutor(workers, thread_name_prefix="intake"),
            options=[
                # otherwise a second coordinator could share the port unnoticed
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", LARGEST_CHUNK + 4096),
                ("grpc.max_metadata_size", 16 * 1024),
                ("grpc.max_concurrent_streams", 2 * KINDS),
                ("grpc.server_handshake_timeout_ms", 1000 * HANDSHAKE_S),
                ("grpc.max_connection_idle_ms", 1000 * IDLE_CONNECTION_S),
            ],
            maximum_concurrent_rpcs=4 * workers,
        )
        server.add_generic_rpc_handlers((service.handlers(),))
        credentials = grpc.ssl_server_credentials(
            [(self._credentials.key_pem, self._credentials.certificate_pem)],
            root_certificates=self._credentials.ca_pem,
            require_client_auth=True,
        )
        try:
            port = server.add_secure_port(self._address, credentials)
        except RuntimeError:
            port = 0
        if not port:
            server.stop(None)
            raise self._busy()
        server.start()
        service.calls.start()
        self._server, self._calls = server, service.calls
        return f"{host}:{port}"

    def _busy(self) -> BusyError:
        return BusyError(f"intake: cannot listen on {self._address}; stop what uses the port or choose another")

    def received_sites(self) -> tuple[str, ...]:
        """Names of the plan's sites of which a package lies in the home, sorted."""
        return tuple(
            site
            for site in sorted(self._plan.sites)
            if any(package_path(self._home, site, part).exists() for part in self._plan.parts_at(site))
        )

    def stop(self, grace_s: float = 2.0) -> None:
        """Close the port; calls in progress get `grace_s` seconds. Harmless when not started."""
        if self._server is not None:
            self._server.stop(grace_s).wait(grace_s + 1.0)
            if self._calls is not None:
                self._calls.stop()
            self._server = None


def _bindable(host: str, port: str) -> bool:
    """Whether the address can be bound now; asked first because gRPC prints lines of its own about a failure."""
    try:
        if not 0 <= int(port) < 65536:
            return False
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, ValueError):
        return False
    return True

"""Opens and closes the intake's port: TLS with client certificates, no port shared, bounded work."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from sfumato_common.errors import BusyError
from sfumato_common.protocol import intake_pb2_grpc
from sfumato_common.study.plan import Plan
from sfumato_server.enrol.registry import Registry
from sfumato_server.intake.admission import package_path
from sfumato_server.intake.service import LARGEST_CHUNK, IntakeService

WORKERS = 8


@dataclass(frozen=True)
class IntakeCredentials:
    """What the server shows and what it trusts, PEM: its key and certificate, the CA that signs the sites."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    ca_pem: bytes


class IntakeServer:
    """Starts and stops the service. `address` is host:port; port 0 takes a free one, see `start`."""

    def __init__(
        self, home: Path, plan: Plan, registry: Registry, address: str, credentials: IntakeCredentials
    ) -> None:
        self._home, self._plan, self._registry = home, plan, registry
        self._address, self._credentials = address, credentials
        self._server: Any = None

    def start(self) -> str:
        """Open the port and return host:port as bound. Raises BusyError when the port is in use."""
        host, _, wanted = self._address.rpartition(":")
        if not _bindable(host.strip("[]"), wanted):
            raise self._busy()
        service = IntakeService(self._home, self._plan, self._registry)
        server = grpc.server(
            ThreadPoolExecutor(WORKERS, thread_name_prefix="intake"),
            options=[
                # otherwise a second coordinator could share the port unnoticed
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", LARGEST_CHUNK + 4096),
                ("grpc.max_metadata_size", 16 * 1024),
            ],
            maximum_concurrent_rpcs=4 * WORKERS,
        )
        intake_pb2_grpc.add_IntakeServicer_to_server(service, server)  # type: ignore[no-untyped-call]
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
        self._server = server
        return f"{host}:{port}"

    def _busy(self) -> BusyError:
        return BusyError(f"intake: cannot listen on {self._address}; stop what uses the port or choose another")

    def received_sites(self) -> tuple[str, ...]:
        """Names of the plan's sites of which a package lies in the home, sorted."""
        return tuple(
            site
            for site in sorted(self._plan.sites)
            if any(package_path(self._home, site, part).exists() for part in self._plan.parts)
        )

    def stop(self, grace_s: float = 2.0) -> None:
        """Close the port; calls in progress get `grace_s` seconds. Harmless when not started."""
        if self._server is not None:
            self._server.stop(grace_s).wait(grace_s + 1.0)
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

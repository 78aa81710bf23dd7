"""A C-STORE listener: application entities that are named, from addresses that are named, and nobody else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from sfumato_client.pacs.receiving import Receiver, storage_contexts
from sfumato_client.pacs.settings import AnyPacs, Listener
from sfumato_client.pacs.spool import PDU_BYTES
from sfumato_client.pacs.tls import server_context
from sfumato_common.errors import BusyError, ConfigError

_MIB = 1024**2
_VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO (PS3.4 Annex A)
# A-ASSOCIATE-RJ (PS3.8 Table 9-21): permanent, by the service user, calling AE title not recognised
_UNKNOWN_TITLE = (0x01, 0x01, 0x03)


class _Handler(RequestHandler):
    """One connection, in a thread of its own, where TLS is spoken too: a silent client keeps nobody else waiting."""

    server: _Server

    def handle(self) -> None:
        """Shake hands, then associate."""
        if self.server.tls is not None:
            self.request.settimeout(self.server.connect_s)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().handle()


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, which closes the door to addresses that are not named, and to too many at once."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None
    connect_s = 10.0
    addresses: frozenset[str] = frozenset()
    most = 1

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is looked at."""
        return _plain(client_address[0]) in self.addresses and len(self.active_associations) < 2 * self.most

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a handshake that failed is the client's to see."""


@contextmanager
def listening(listener: Listener, receiver: Receiver, pacs: AnyPacs) -> Iterator[None]:
    """Listen until the block ends. Raises BusyError where the port is taken, ConfigError for another's address."""
    entity = AE(listener.ae_title)
    entity.maximum_associations = listener.associations
    entity.maximum_pdu_size = PDU_BYTES
    entity.acse_timeout = pacs.connect_s
    entity.dimse_timeout = entity.network_timeout = pacs.idle_s
    entity.require_called_aet = True
    entity.supported_contexts = storage_contexts(pacs.wanted_classes)
    entity.add_supported_context(_VERIFICATION)

    def admit(event: Any) -> None:
        title = event.assoc.requestor.primitive.calling_ae_title.strip()
        if _plain(event.assoc.requestor.address) not in listener.peers.get(title, ()):
            event.assoc.acse.send_reject(*_UNKNOWN_TITLE)
            event.assoc.kill()  # once that is sent

    tls = None if listener.tls is None else server_context(listener.tls)
    handlers: list[Any] = [(evt.EVT_REQUESTED, admit), (evt.EVT_C_STORE, receiver.store)]
    try:
        server: Any = entity.make_server(
            (listener.address, listener.port),
            evt_handlers=handlers,
            server_class=_Server,
            request_handler=_Handler,
        )
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno in (socket.EAI_ADDRFAMILY, 99):
            raise ConfigError("'listener' names an address or port this machine does not have; check it") from None
        raise BusyError(f"port {listener.port} of the listener is in use; name another") from None
    server.tls, server.connect_s, server.most = tls, pacs.connect_s, listener.associations
    server.addresses = frozenset(each for given in listener.peers.values() for each in given)
    entity._servers.append(server)  # `shutdown` takes it out again
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()
        thread.join(5)


def _plain(address: str) -> str:
    """An IPv4 address that came over an IPv6 socket, as itself."""
    return address.removeprefix("::ffff:")


def keep_free(listener: Listener) -> int:
    """Bytes that have to stay free."""
    return listener.keep_free_mib * _MIB

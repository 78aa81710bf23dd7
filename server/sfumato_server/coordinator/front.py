"""The front of the SuperLink: the one port that hospitals reach, which passes the Fleet API and nothing else.

HTTP/1.1 (RFC 9112) over mutual TLS, parsed by h11. Who comes without the certificate of an enrolled site says nothing
to anybody; who comes with one speaks as the node of that site alone. A request is read whole, within a size and a time,
and told anew to the SuperLink on loopback: method, path and headers come from the tables below, so that nothing of the
caller's making but the body and the values of a few headers gets there. Who called is told to `heard`, with the step of
its work where the site tells that (`PROGRESS_HEADER`), which goes no further.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import h11
import httpx

from sfumato_common.errors import SfumatoError
from sfumato_common.protocol.messages import PROGRESS_HEADER
from sfumato_server.coordinator.listener import Listener
from sfumato_server.enrol import Authority, Registry
from sfumato_server.rounds.superlink import node_key_bytes

# what a registered SuperNode calls; nodes are registered by the coordinator alone, so that call is not among them
FLEET_PATHS = frozenset(
    f"/v1/fleet/{call}".encode()
    for call in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages",
        "get-run", "get-fab", "push-object", "pull-object", "confirm-message-received",
    )
)  # fmt: skip
# body type, the node's signature, and the version of its Flower
PASSED_HEADERS = frozenset(
    (
        b"content-type", b"accept", b"flwr-public-key", b"flwr-signature", b"flwr-timestamp",
        b"flwr-package-name", b"flwr-package-version", b"flwr-component-name",
    )
)  # fmt: skip
LARGEST_HEAD = 16 * 1024
# Flower sends arrays in pieces of 5 MiB
LARGEST_BODY = 8 * 1024 * 1024
CONNECTIONS_OF_A_SITE = 16
_CHUNK = 64 * 1024
_UPSTREAM_SECONDS = 60.0


@dataclass(frozen=True)
class Patience:
    """Seconds that a caller may take: for the TLS handshake, for the next request's head, and for its body."""

    handshake: float = 10.0
    head: float = 30.0
    body: float = 300.0


@dataclass(frozen=True)
class Upstream:
    """The SuperLink behind: host:port on loopback, and the PEM of the CA that its certificate must be of."""

    address: str
    ca_pem: bytes


class Refusal(Exception):
    """A request that is answered here, with an HTTP status and no words."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class FleetFront(Listener):
    """Opens and closes the front's port."""

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        upstream: Upstream,
        registry: Registry,
        patience: Patience | None = None,
        heard: Callable[[str, bytes | None], None] = lambda site, told: None,
    ) -> None:
        super().__init__(address, "front")
        self._context, self._upstream, self._registry = context, upstream, registry
        self._patience, self._heard = patience or Patience(), heard
        self._open: Counter[str] = Counter()

    async def _listen(self, **terms: Any) -> None:
        trust = ssl.create_default_context(cadata=self._upstream.ca_pem.decode("ascii"))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        self._client = httpx.AsyncClient(
            base_url=f"https://{self._upstream.address}",
            verify=trust,
            timeout=_UPSTREAM_SECONDS,
            limits=limits,
            trust_env=False,
        )
        await super()._listen(ssl=self._context, ssl_handshake_timeout=self._patience.handshake, **terms)

    async def _close(self) -> None:
        await super()._close()
        if self._server is not None:
            await self._client.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its handshake to its end; nothing that happens in it ends the front."""
        certificate = ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        self._open[certificate] += 1
        try:
            if self._open[certificate] <= CONNECTIONS_OF_A_SITE:
                await self._converse(Conversation(reader, writer, self._patience), certificate.encode())
        except (OSError, TimeoutError, h11.ProtocolError, asyncio.CancelledError):
            pass  # gone, too slow, no HTTP, or the front closes
        finally:
            self._open[certificate] -= 1
            writer.close()

    async def _converse(self, conversation: Conversation, certificate: bytes) -> None:
        """Request after request of one connection. Who the caller is, is asked anew each time: a revocation holds."""
        while head := await conversation.head():
            try:
                headers = passed_headers(head)
                self._heard(check_node(headers, certificate, self._registry), dict(head.headers).get(PROGRESS_HEADER))
                body = await conversation.body()
                answer = await self._client.post(head.target.decode("ascii"), content=body, headers=headers)
                await conversation.answer(answer.status_code, answer.content, answer.headers.get("content-type"))
            except Refusal as refusal:
                await conversation.answer(refusal.status, last=True)
            except httpx.HTTPError:
                await conversation.answer(503)  # a SuperNode asks again after this one
            if not conversation.goes_on():
                return


class Conversation:
    """The server's side of one HTTP/1.1 connection: h11 over asyncio's streams, each step within its time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: Patience) -> None:
        self._reader, self._writer, self._patience = reader, writer, patience
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)

    async def head(self) -> h11.Request | None:
        """The next request's head; None when the other side has ended."""
        async with asyncio.timeout(self._patience.head):
            event = await self._event()
        return event if isinstance(event, h11.Request) else None

    async def body(self) -> bytes:
        """The request's body. Raises Refusal when it is larger than any that Flower sends."""
        content = bytearray()
        async with asyncio.timeout(self._patience.body):
            while isinstance(event := await self._event(), h11.Data):
                content += event.data
                if len(content) > LARGEST_BODY:
                    raise Refusal(413)
        return bytes(content)

    async def answer(self, status: int, content: bytes = b"", kind: str | None = None, last: bool = False) -> None:
        """Send a whole answer; with `last` the connection ends with it."""
        # by the date a site finds that its clock is wrong (RFC 9110, section 6.6.1)
        headers = [("content-length", str(len(content))), ("date", format_datetime(datetime.now(UTC), usegmt=True))]
        headers += [("content-type", kind)] if kind else []
        headers += [("connection", "close")] if last else []
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=content), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        async with asyncio.timeout(self._patience.body):
            await self._writer.drain()

    def goes_on(self) -> bool:
        """Whether another request may come; makes ready for it."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._writer.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self._http.receive_data(await self._reader.read(_CHUNK))
        return event


def passed_headers(head: h11.Request) -> Mapping[bytes, bytes]:
    """The headers that go on to the SuperLink. Raises Refusal unless the request is a POST to the Fleet API.

    The path must be one of the table byte for byte: no query, no escapes, no other spelling.
    """
    if head.target not in FLEET_PATHS:
        raise Refusal(404)
    if head.method != b"POST":
        raise Refusal(405)
    passed = [(name, value) for name, value in head.headers if name in PASSED_HEADERS]
    headers = dict(passed)
    if len(headers) != len(passed):
        raise Refusal(400)  # said twice: two readers could each believe another one
    return {**headers, b"accept-encoding": b"identity"}


def check_node(headers: Mapping[bytes, bytes], certificate: bytes, registry: Registry) -> str:
    """The site that calls.

    Raises Refusal unless the certificate (PEM) is of a site in good standing, and the node key of that same site; with
    401, after which a SuperNode ends; it takes a 403 for the end of the run alone, and goes on.
    """
    try:
        record = registry.by_certificate(certificate)
    except SfumatoError:  # unknown, revoked, or a register that cannot be read
        raise Refusal(401) from None
    if headers.get(b"flwr-public-key") != base64.b64encode(node_key_bytes(record.node_key.encode())):
        raise Refusal(401)
    return record.site


def front_context(authority: Authority) -> ssl.SSLContext:
    """TLS 1.2 or later with the coordinator's certificate; callers show one that its CA signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(authority.server_certificate_path, authority.server_key_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_path)
    return context

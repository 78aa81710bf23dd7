"""A look at the coordinator before a study: is it reached, the right one, and one that knows this site; and its clock.

One call of Flower's Fleet API that takes a node in, the one that gives it back, and one open line to the intake. They
say no more of the site than that it is there, which its coordinator learns whenever it joins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import grpc
import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from sfumato_client.egress.flower_hooks import certified_client
from sfumato_client.egress.supernode import SuperNodeSettings
from sfumato_client.egress.unreached import cut_words, refusal_words, seconds_ahead
from sfumato_client.egress.upload import channel_options
from sfumato_common.proxies import proxies_of

PATIENCE_S = 15.0
_HEARTBEAT_S = 30.0


@dataclass(frozen=True)
class Reached:
    """What came of it: `problem` is a sentence with what to do, '' where all held.

    `ahead_s` are the seconds that this machine's clock is ahead of the coordinator's, None where that is not known.
    """

    problem: str = ""
    ahead_s: float | None = None


def reach(settings: SuperNodeSettings, patience_s: float = PATIENCE_S, now: Callable[[], float] = time.time) -> Reached:
    """Join the coordinator as the site's node would, and leave at once. Must not run beside the site's own node.

    Raises ConfigError for a proxy that the environment names and nothing can use.
    """
    heard = _Heard(now)
    with _one_proxy():
        return _reach(settings, heard, patience_s)


def _reach(settings: SuperNodeSettings, heard: _Heard, patience_s: float) -> Reached:
    try:
        with _client(settings, heard, patience_s) as client:
            _come_and_go(client, settings)
    except httpx.HTTPStatusError as error:
        return Reached(refusal_words(error.response, heard.ahead_s), heard.ahead_s)
    except (httpx.HTTPError, OSError) as error:
        return Reached(cut_words(error, settings.coordinator), heard.ahead_s)
    if not _intake_answers(settings, patience_s):
        return Reached(
            "it is reached, but its intake is not: something between here and there lets HTTP/1.1 pass and no HTTP/2, "
            "by which releases travel; have TLS to that address passed through untouched",
            heard.ahead_s,
        )
    return Reached("", heard.ahead_s)


@contextmanager
def _one_proxy() -> Iterator[None]:
    """Let httpx and gRPC read the same proxy in the environment, which is as before afterwards."""
    before = dict(os.environ)
    os.environ.update(proxies_of(os.environ))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Heard:
    """Keeps the coordinator's time of its last answer (RFC 9110, section 6.6.1), whose seconds are whole."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.ahead_s: float | None = None

    def intercept(self, context: Any, call_next: Any) -> Any:
        """Flower's interceptor of a call."""
        asked = self._now()
        response = call_next(context)
        if (ahead := seconds_ahead(response, asked, self._now())) is not None:
            self.ahead_s = ahead
        return response


def _client(settings: SuperNodeSettings, heard: _Heard, patience_s: float) -> Any:
    connection = import_module("flwr.supernode.fleet_http_connection")
    kind = certified_client(connection.FleetHttpClient, settings.certificate_file, settings.tls_key_file, heard)
    node_key = _node_key(settings)
    own = [
        connection.RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        connection.NodeAuthHttpInterceptor(node_key, node_key.public_key()),
    ]
    return kind.from_server_address(settings.coordinator, False, settings.ca_file.read_bytes(), own, timeout=patience_s)


def _node_key(settings: SuperNodeSettings) -> Any:
    return load_ssh_private_key(settings.node_key_file.read_bytes(), password=None)


def _come_and_go(client: Any, settings: SuperNodeSettings) -> None:
    fleet, node = import_module("flwr.proto.fleet_pb2"), import_module("flwr.supercore.primitives.asymmetric")
    public = _node_key(settings).public_key()
    request = fleet.ActivateNodeRequest(public_key=node.public_key_to_bytes(public), heartbeat_interval=_HEARTBEAT_S)
    taken = client.ActivateNode(request)
    client.DeactivateNode(fleet.DeactivateNodeRequest(node_id=taken.node_id))


def _intake_answers(settings: SuperNodeSettings, patience_s: float) -> bool:
    """Whether HTTP/2 over mutual TLS comes about, by which packages are sent."""
    pems = (settings.ca_file, settings.tls_key_file, settings.certificate_file)
    credentials = grpc.ssl_channel_credentials(*(path.read_bytes() for path in pems))
    with grpc.secure_channel(settings.coordinator, credentials, channel_options(settings.coordinator)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=patience_s)
        except grpc.FutureTimeoutError:
            return False
    return True

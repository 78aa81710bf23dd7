"""A look at the coordinator before a study: is it reached, the right one, and one that knows this site; and its clock.

One call of Flower's Fleet API that takes a node in, the one that gives it back, and one open line to the intake. They
say no more of the site than that it is there, which its coordinator learns whenever it joins.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any

import grpc
import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from sfumato_client.egress.flower_hooks import certified_client
from sfumato_client.egress.supernode import SuperNodeSettings
from sfumato_client.egress.upload import channel_options
from sfumato_common.crypto.certificates import CLOCK_SKEW
from sfumato_common.proxies import LOOPBACK_NAMES, proxies_of

PATIENCE_S = 15.0
# certificates allow for so much, in seconds, and the coordinator takes no signature whose time is much further away
CLOCK_S = CLOCK_SKEW.total_seconds()
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
        return Reached(_refusal(error.response, heard), heard.ahead_s)
    except (httpx.HTTPError, OSError) as error:
        return Reached(_cut(error, settings.coordinator), heard.ahead_s)
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
        try:
            said = parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            return response
        # it was written between asking and now, at some moment of its second
        early, late = asked - (said + 1.0), self._now() - said
        self.ahead_s = early if early > 0.0 else min(late, 0.0)
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


def _refusal(response: httpx.Response, heard: _Heard) -> str:
    """A sentence for a status with which the coordinator refused."""
    if response.status_code in (502, 503, 504):
        return "it is reached, but does not work at the moment; ask its people whether 'sfumato coordinator run' runs"
    if heard.ahead_s is not None and abs(heard.ahead_s) > CLOCK_S:
        return "it refuses what is signed by a clock so far from its own; set this machine's clock"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return (
            "it refuses this site's certificate or node key: enrolled elsewhere, revoked, or another grant is newer; "
            "ask its people, and take a new grant by 'sfumato-site join'"
        )
    if response.status_code == httpx.codes.NOT_FOUND or "html" in response.headers.get("content-type", ""):
        return "what answers at that address is no coordinator of Sfumato; check the address"
    return (
        "it does not know this site's key (have the enrolment request signed), or still holds its last connection (try "
        "again in a minute)"
    )


def _cut(error: BaseException, address: str) -> str:
    """A sentence for a line that did not come about, by the first cause that the system named."""
    said = " ".join(str(each) for each in _causes(error)).lower()
    proxied = _goes_by_proxy(address, os.environ)
    if isinstance(error, httpx.ProxyError):
        return (
            "the proxy of HTTPS_PROXY does not let it through; ask who runs the proxy to allow CONNECT to this address"
        )
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error)):
        if "hostname mismatch" in said or "ip address mismatch" in said:
            return "its certificate is not made out to that name; join again with a name that the coordinator gave"
        if "expired" in said or "not yet valid" in said:
            return "its certificate is out of date by this machine's clock; check the clock, or tell the coordinator"
        return (
            "its certificate is not the federation's: the address is another's, or something on the way opens TLS (an "
            "inspecting proxy); have TLS to that address passed through untouched"
        )
    if "alert" in said:
        return "it takes no certificate of this site; ask its people whether the site is enrolled with this coordinator"
    if "name or service not known" in said or "nodename nor servname" in said or "name resolution" in said:
        whose = "the name in HTTPS_PROXY" if proxied else "its name"
        return f"{whose} is not known here; check it, and this machine's DNS"
    if "refused" in said:
        if proxied:
            return "nothing listens where HTTPS_PROXY points; check that variable"
        return "nothing listens there; check the address, and ask whether 'sfumato coordinator run' runs"
    if isinstance(error, httpx.TimeoutException) or "timed out" in said or "unreachable" in said:
        whom = "the proxy" if proxied else "it"
        return f"nothing comes back from {whom}; have the firewall let this machine connect out to that one port"
    return (
        "the line was cut before it answered: it takes no certificate of this site (ask its people whether the site is "
        "enrolled with this coordinator), or something on the way does not let TLS through"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _goes_by_proxy(address: str, environment: Mapping[str, str]) -> bool:
    proxies = proxies_of(environment)
    host = address.rpartition(":")[0].strip("[]")
    direct = proxies.get("no_proxy", ",".join(LOOPBACK_NAMES)).split(",")
    return bool(proxies) and not any(
        host == name or (name and host.endswith("." + name.lstrip("."))) for name in direct
    )


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

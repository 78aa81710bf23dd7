"""The front of the SuperLink: what passes, what does not, and who may speak at all. Behind it stands an echo."""

import base64
import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.tls import shake_hands, tls_context

from sfumato_common.errors import BusyError
from sfumato_common.supervise import free_port
from sfumato_server.coordinator.front import (
    CONNECTIONS_OF_A_SITE,
    FLEET_PATHS,
    LARGEST_BODY,
    LARGEST_HEAD,
    PASSED_HEADERS,
    FleetFront,
    Patience,
    Upstream,
    front_context,
)
from sfumato_server.enrol import create_authority, revoke
from sfumato_server.rounds.superlink import node_key_bytes

PULL = "/v1/fleet/pull-messages"


class Echo(BaseHTTPRequestHandler):
    """A SuperLink that answers with what came, and keeps it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.came.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        answer = json.dumps([self.path, len(body)]).encode()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def echo(founded):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(founded.authority.server_certificate_path, founded.authority.server_key_path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.came, server.daemon_threads = [], True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def front(consortium, echo):
    """(port, consortium) of a front with little patience."""
    port = free_port()
    upstream = Upstream(f"127.0.0.1:{echo.server_port}", consortium.authority.ca_pem)
    patience = Patience(handshake=1.0, head=1.0, body=1.0)
    front = FleetFront(
        ("127.0.0.1", port), front_context(consortium.authority), upstream, consortium.registry, patience
    )
    front.start()
    yield port, consortium
    front.stop()


def connect(front, site="north"):
    """A TLS connection that shows the certificate of `site`; None shows none."""
    port, consortium = front
    context = ssl.create_default_context(cadata=consortium.authority.ca_pem.decode())
    if site is not None:
        folder = consortium.identities[site].folder
        context.load_cert_chain(folder / "site.crt", folder / "tls.key")
    plain = socket.create_connection(("127.0.0.1", port), 5)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def node_key(consortium, site):
    return base64.b64encode(node_key_bytes(consortium.identities[site].node_public)).decode()


def request(front, site="north", target=PULL, method="POST", body=b"x", **headers):
    """The bytes of a request as the node of `site` makes it; header names with '_' for '-'."""
    named = {"host": "h", "content-length": str(len(body)), "flwr-public-key": node_key(front[1], site)}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(connection):
    """(status, body) of one answer; (0, b"") where the connection just ends."""
    said = b""
    try:
        while b"\r\n\r\n" not in said:
            if not (more := connection.recv(65536)):
                return 0, b""
            said += more
        head, _, body = said.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
    except (ssl.SSLError, ConnectionError):
        return 0, b""
    return int(head.split()[1]), body


def ask(front, raw=None, site="north", **rest):
    with connect(front, site) as connection:
        with suppress(OSError):  # hung up on while still speaking
            connection.sendall(raw if raw is not None else request(front, site or "north", **rest))
        return answer(connection)


def test_the_table_is_flowers_fleet_api_but_for_registration():
    from flwr.superlink.routers.fleet.router import router

    theirs = {route.path.encode() for route in router.routes}
    assert theirs - FLEET_PATHS == {b"/v1/fleet/register-node", b"/v1/fleet/unregister-node"}
    assert theirs > FLEET_PATHS


def test_the_headers_are_those_that_flowers_node_sends():
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.supercore import constant

    node = (constant.FLEET_HTTP_PUBLIC_KEY_HEADER, constant.FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER)
    version = (
        constant.FLWR_PACKAGE_NAME_METADATA_KEY,
        constant.FLWR_PACKAGE_VERSION_METADATA_KEY,
        constant.FLWR_COMPONENT_NAME_METADATA_KEY,
    )
    assert {"content-type", "accept", *node, *version} == {name.decode() for name in PASSED_HEADERS}


def test_a_fleet_call_passes_and_nothing_of_it_but_the_tables_headers(front, echo):
    stolen = {"authorization": "Bearer x", "flwr_task_token": "x", "flwr_superexec_signature": "x", "cookie": "x"}
    status, said = ask(front, body=b"message" * 1000, flwr_signature="s", x_forwarded_for="1.2.3.4", **stolen)
    assert (status, json.loads(said)) == (200, [PULL, 7000])
    (path, headers, body), *others = echo.came
    assert (path, body, others) == (PULL, b"message" * 1000, [])
    own = {"host", "content-length", "connection", "user-agent", "accept", "accept-encoding"}
    assert set(headers) - own == {"flwr-public-key", "flwr-signature"}
    assert headers["host"] == f"127.0.0.1:{echo.server_port}"


def other_routes():
    """Every path of the SuperLink that is not in the table, from Flower's own application."""
    from fastapi.routing import iter_route_contexts
    from flwr.superlink.main import create_app

    paths = {context.route.path for context in iter_route_contexts(create_app().routes)}
    return sorted(paths - {path.decode() for path in FLEET_PATHS})


def test_no_other_route_of_the_superlink_is_reached(front, echo):
    routes = other_routes()
    assert {"/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/register-node", "/docs"} <= set(routes)
    assert len(routes) > 60
    for path in routes:
        assert ask(front, target=path) == (404, b""), path
    assert echo.came == []


SPELLINGS = [
    "/v1/fleet/",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages?x=1",
    "/v1/fleet//pull-messages",
    "//v1/fleet/pull-messages",
    "/V1/fleet/pull-messages",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/pull-messages/../../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/..%2fcontrol%2fstart-run",
    "/v1/fleet/pull%2Dmessages",
    "/v1/fleet/pull-messages;x",
    "/v1/fleet/pull-messages#/v1/control/start-run",
    "/v1/fleet\\..\\control/start-run",
    "https://127.0.0.1/v1/fleet/pull-messages",
    "*",
]


@pytest.mark.parametrize("target", SPELLINGS)
def test_another_spelling_of_a_path_is_another_path(front, echo, target):
    assert ask(front, target=target) == (404, b"")
    assert echo.came == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "CONNECT", "OPTIONS", "post"])
def test_no_method_but_post_passes(front, echo, method):
    assert ask(front, method=method)[0] == 405
    assert echo.came == []


def test_a_second_request_hidden_in_the_first_is_a_body(front, echo):
    hidden = request(front, target="/v1/control/start-run")
    assert ask(front, body=hidden)[0] == 200
    assert [(path, body) for path, _, body in echo.came] == [(PULL, hidden)]


def test_two_requests_at_once_are_judged_one_by_one(front, echo):
    with connect(front) as connection:
        connection.sendall(request(front) + request(front, target="/v1/control/start-run"))
        assert answer(connection)[0] == 200
        assert answer(connection) == (404, b"")
    assert len(echo.came) == 1


@pytest.mark.parametrize(
    "lines",
    [
        "content-length: 1\r\ncontent-length: 2\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "content-length: -1\r\n",
        "bad header: x\r\n",
        f"long: {'x' * 16 * LARGEST_HEAD}\r\n",
    ],
)
def test_what_two_readers_could_read_in_two_ways_ends_the_connection(front, echo, lines):
    raw = request(front, content_length=None)[:-1].replace(b"\r\n\r\n", b"\r\n" + lines.encode() + b"\r\n")
    assert ask(front, raw + b"x" * 40) == (0, b"")
    assert echo.came == []


def test_a_header_said_twice_is_refused(front, echo):
    raw = request(front).replace(b"host: h", b"host: h\r\nflwr-public-key: other")
    assert ask(front, raw) == (400, b"")
    assert echo.came == []


def test_a_body_larger_than_any_is_refused_before_it_is_whole(front, echo):
    with connect(front) as connection:
        connection.sendall(request(front, body=b"", content_length=str(LARGEST_BODY * 100)))
        with pytest.raises(OSError):  # noqa: PT012 - wherever the front hangs up
            for _ in range(100):
                connection.sendall(bytes(LARGEST_BODY // 4))
    assert echo.came == []


def test_without_a_certificate_nothing_is_said(front, echo):
    assert ask(front, request(front), site=None) == (0, b"")
    assert echo.came == []


def test_a_certificate_of_another_ca_opens_nothing(front, echo, tmp_path):
    port, consortium = front
    foreign = create_authority(tmp_path / "foreign")
    context = ssl.create_default_context(cadata=consortium.authority.ca_pem.decode())
    context.load_cert_chain(foreign.server_certificate_path, foreign.server_key_path)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="127.0.0.1") as other:
        other.sendall(request(front))
        assert answer(other) == (0, b"")
    assert echo.came == []


def test_the_coordinators_own_server_certificate_is_no_sites(front, echo):
    port, consortium = front
    context = ssl.create_default_context(cadata=consortium.authority.ca_pem.decode())
    context.load_cert_chain(consortium.authority.server_certificate_path, consortium.authority.server_key_path)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="127.0.0.1") as other:
        other.sendall(request(front))
        assert answer(other) == (0, b"")
    assert echo.came == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_not_spoken(front):
    port, consortium = front
    context = tls_context(consortium.identities["north"].folder)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shake_hands(context, port, version)
    shake_hands(context, port, ssl.TLSVersion.TLSv1_2)


def test_a_site_speaks_as_its_own_node_alone(front, echo):
    assert ask(front, request(front, "south"), site="north") == (401, b"")
    assert ask(front, flwr_public_key=None) == (401, b"")
    assert echo.came == []


def test_a_revoked_site_is_out_at_its_next_request(front, echo):
    with connect(front) as connection:
        connection.sendall(request(front))
        assert answer(connection)[0] == 200
        revoke(front[1].home, "north")
        connection.sendall(request(front))
        assert answer(connection) == (401, b"")
    assert ask(front) == (401, b"")
    assert ask(front, site="south")[0] == 200
    assert len(echo.came) == 2


@pytest.mark.parametrize("sent", [b"", b"POST /v1/fl"])
def test_who_says_nothing_or_half_a_head_is_hung_up_on(front, sent):
    began = time.monotonic()
    assert ask(front, sent) == (0, b"")
    assert time.monotonic() - began < 4


def test_a_body_that_does_not_come_is_not_waited_for(front, echo):
    assert ask(front, content_length="1000") == (0, b"")
    assert echo.came == []


def test_a_handshake_that_does_not_come_is_not_waited_for(front):
    with socket.create_connection(("127.0.0.1", front[0]), 5) as silent:
        assert silent.recv(1) == b""


def test_one_site_cannot_hold_all_connections(front):
    many = [connect(front) for _ in range(CONNECTIONS_OF_A_SITE + 1)]
    try:
        many[-1].sendall(request(front))
        assert answer(many[-1]) == (0, b"")
        assert ask(front, site="south")[0] == 200
    finally:
        for connection in many:
            connection.close()


def test_a_superlink_that_is_away_is_said_with_the_status_that_nodes_ask_again_after(front, echo):
    echo.shutdown()
    echo.server_close()
    assert ask(front) == (503, b"")


def test_who_took_the_superlinks_port_is_told_nothing(consortium, echo, tmp_path):
    # a local user may be faster than the SuperLink: without a certificate of this CA no request reaches them
    foreign = create_authority(tmp_path / "foreign")
    port = free_port()
    upstream = Upstream(f"127.0.0.1:{echo.server_port}", foreign.ca_pem)
    front = FleetFront(("127.0.0.1", port), front_context(consortium.authority), upstream, consortium.registry)
    front.start()
    try:
        assert ask((port, consortium)) == (503, b"")
    finally:
        front.stop()
    assert echo.came == []


def test_a_register_that_cannot_be_read_lets_nobody_in(front, echo):
    (front[1].home / "sites.json").write_text("{")
    assert ask(front) == (401, b"")
    assert echo.came == []


def test_a_taken_port_is_said(front, consortium):
    upstream = Upstream("127.0.0.1:1", consortium.authority.ca_pem)
    context = front_context(consortium.authority)
    second = FleetFront(("127.0.0.1", front[0]), context, upstream, consortium.registry)
    with pytest.raises(BusyError, match="in use"):
        second.start()
    second.stop()


def test_who_called_is_told_with_its_step_which_goes_no_further(consortium, echo):
    heard, port = [], free_port()
    upstream = Upstream(f"127.0.0.1:{echo.server_port}", consortium.authority.ca_pem)
    context = front_context(consortium.authority)
    front = FleetFront(
        ("127.0.0.1", port), context, upstream, consortium.registry, heard=lambda *told: heard.append(told)
    )
    front.start()
    try:
        here = (port, consortium)
        assert ask(here, sfumato_progress="3/40")[0] == 200
        assert ask(here, site="south", flwr_public_key=node_key(consortium, "north"))[0] == 401
        assert ask(here, raw=request(here, "south"), site="south")[0] == 200
    finally:
        front.stop()
    assert heard == [("north", b"3/40"), ("south", None)], "nobody but a site's own node is heard"
    assert all("sfumato-progress" not in headers for _, headers, _ in echo.came)

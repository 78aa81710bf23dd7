"""The coordinator's one port: both of its services behind it, by name, by IPv6, and what it does not let in."""

import functools
import socket
import ssl
import time

import grpc
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.proxies import proxy_at_work

from sfumato_client.egress.upload import upload_package
from sfumato_common.errors import BusyError, FederationError
from sfumato_common.protocol import intake_pb2, intake_pb2_grpc
from sfumato_common.proxies import proxies_of
from sfumato_common.supervise import free_port
from sfumato_server.coordinator import door as door_module
from sfumato_server.coordinator.door import Behind, Door, protocols
from sfumato_server.coordinator.front import FleetFront, Patience, Upstream, front_context
from sfumato_server.intake import IntakeCredentials, IntakeServer


@pytest.fixture
def open_door(consortium):
    """Opens doors before one intake and one front, whose SuperLink is away."""
    authority = consortium.authority
    credentials = IntakeCredentials(
        authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes(), authority.ca_pem
    )
    intake = IntakeServer(consortium.home, consortium.plan, consortium.registry, "127.0.0.1:0", credentials)
    behind = Behind(int(intake.start().rpartition(":")[2]), free_port())
    upstream = Upstream(f"127.0.0.1:{free_port()}", authority.ca_pem)
    address, context = ("127.0.0.1", behind.front), front_context(authority)
    front = FleetFront(address, context, upstream, consortium.registry, Patience(1.0, 1.0, 1.0))
    front.start()
    doors = []

    def opened(host="127.0.0.1", **terms):
        doors.append(Door((host, free_port()), behind, **terms))
        doors[-1].start()
        return doors[-1].address[1]

    yield opened
    for door in doors:
        door.stop()
    front.stop()
    intake.stop(0.2)


def client(consortium, site="north"):
    context = ssl.create_default_context(cadata=consortium.authority.ca_pem.decode())
    if site:
        folder = consortium.identities[site].folder
        context.load_cert_chain(folder / "site.crt", folder / "tls.key")
    return context


def send(consortium, address):
    grant, identity = consortium.grants["north"], consortium.identities["north"]
    terms = {"ca_pem": grant.authority, "certificate_pem": grant.certificate, "key_pem": identity.tls_key_pem}
    data = consortium.package("north")
    upload_package(address, data, **terms, site="north", plan_hash=consortium.plan.digest, timeout=10.0)
    assert (consortium.home / "intake" / "north.formal.sfumato").read_bytes() == data


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_intake_and_front_are_reached_by_one_port(consortium, open_door, host, address):
    port = open_door(host)
    send(consortium, f"{address}:{port}")
    url, context = f"https://{address}:{port}", client(consortium)
    with httpx.Client(base_url=url, verify=context, trust_env=False) as hospital:
        assert hospital.post("/v1/fleet/get-run").status_code == 401, "the front asks for the node's key"
        assert hospital.post("/sfumato.intake.v1.Intake/Begin").status_code == 404


def test_who_shows_no_certificate_speaks_with_neither(consortium, open_door):
    port = open_door()
    with pytest.raises(httpx.TransportError):
        httpx.post(f"https://127.0.0.1:{port}/v1/fleet/get-run", verify=client(consortium, None), trust_env=False)
    credentials = grpc.ssl_channel_credentials(consortium.authority.ca_pem)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel, pytest.raises(grpc.RpcError) as refused:
        intake_pb2_grpc.IntakeStub(channel).Begin(intake_pb2.BeginRequest(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
        b"\x16\x03\x01\x00\x05\x01\x00\x00\xff\x00",
        b"\x15\x03\x03\x00\x02\x01\x00",
    ],
)
def test_what_is_no_hello_of_tls_is_closed_without_a_word(open_door, said):
    port = open_door()
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            plain.sendall(said)
            assert plain.recv(100) == b""
        except ConnectionError:
            pass


def test_who_says_nothing_or_half_a_hello_is_not_waited_for(consortium, open_door, monkeypatch):
    monkeypatch.setattr(door_module, "HELLO_SECONDS", 0.3)
    port = open_door()
    for said in (b"", hello_of("h2")[:40]):
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            plain.sendall(said)
            began = time.monotonic()
            assert plain.recv(100) == b"" and time.monotonic() - began < 3.0
    send(consortium, f"127.0.0.1:{port}")


def test_connections_are_counted_and_let_go(consortium, open_door):
    port = open_door(most=2)
    held = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(2)]
    time.sleep(0.2)
    with pytest.raises(FederationError, match="not reached in time"):
        upload_package(
            f"127.0.0.1:{port}", b"x", ca_pem=consortium.authority.ca_pem,
            certificate_pem=consortium.grants["north"].certificate,
            key_pem=consortium.identities["north"].tls_key_pem, site="north", plan_hash="", timeout=0.5,
        )  # fmt: skip
    for connection in held:
        connection.close()
    send(consortium, f"127.0.0.1:{port}")


def test_a_port_that_is_taken_is_said(open_door):
    port = open_door()
    with pytest.raises(BusyError, match=f"port {port}"):
        Door(("127.0.0.1", port), Behind(1, 2)).start()


def test_a_package_passes_the_proxy_of_the_hospital_and_its_own_machine_never_does(consortium, open_door, monkeypatch):
    port = open_door()
    with proxy_at_work({"localhost.example": port}) as proxy:
        for name, value in proxies_of({"HTTPS_PROXY": proxy.url}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(FederationError, match="certificate is not made out to that name"):
            send(consortium, f"localhost.example:{port}")  # which the proxy alone can find
        assert set(proxy.asked) == {f"localhost.example:{port}"}
        proxy.asked.clear()
        send(consortium, f"localhost:{port}")
        assert proxy.asked == []


@functools.cache
def hello_of(*names):
    context = ssl.create_default_context()
    if names:
        context.set_alpn_protocols(list(names))
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(coming, going, server_hostname="coordinator.example").do_handshake()
    return going.read()


@pytest.mark.parametrize("names", [[], ["h2"], ["http/1.1"], ["http/1.1", "h2"], ["x" * 255] * 20])
def test_what_a_client_offers_is_read_from_its_hello(names):
    assert protocols(hello_of(*names)) == tuple(name.encode() for name in names)


@settings(deadline=None)  # another test's processes may share the machine
@given(st.integers(0, 600), st.binary(min_size=1, max_size=4), st.integers(0, 600))
def test_a_hello_that_was_tampered_with_is_read_or_refused(at, put, kept):
    hello = hello_of("h2", "http/1.1")
    changed = (hello[:at] + put + hello[at + len(put) :])[: len(hello) - kept % len(hello)]
    try:
        found = protocols(changed)
    except ValueError:
        return
    assert all(isinstance(name, bytes) for name in found)

"""The relay carries gRPC and HTTP unaltered, leaves all checks of certificates on, and misses nothing."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest
from support.traffic.layers import layers
from support.traffic.relay import Port, Relay
from support.traffic.sockets import Peer, can_trace, outward, traced
from support.traffic.toy import SECRET, hits_on

from sfumato_common.supervise import free_port
from sfumato_server.enrol import create_authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return create_authority(tmp_path_factory.mktemp("coordinator"))


def relay_of(authority):
    return Relay(authority.ca_path, authority.server_certificate_path, authority.server_key_path)


@pytest.fixture
def echo(authority):
    """A gRPC server behind TLS that answers any call with its own bytes."""

    class Anything(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: requests)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Anything()])
    pair = (authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield port
    server.stop(None).wait(5)


def call(port, ca, data, **metadata):
    credentials = grpc.ssl_channel_credentials(ca)
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        speak = channel.stream_stream("/test/Upload")
        return b"".join(speak(iter([data]), metadata=list(metadata.items()), timeout=20))


def test_grpc_goes_through_the_relay_and_is_read_whole(authority, echo, scanner):
    large = np.random.default_rng(1).bytes(300_000)
    with relay_of(authority) as relay:
        port = relay.open(Port("alder", echo, {"h2": "intake"}))
        assert call(port, authority.ca_pem, large, note="nothing") == large
        assert call(port, authority.ca_pem, b"x", patient=SECRET) == b"x"
    first, second = relay.of("alder", "intake")
    assert relay.problems == [] and first.alpn == "h2"
    whole = [layer for layer in layers(first, "c") if layer.name.endswith("message 0")]
    assert [layer.data for layer in whole] == [large], "put together from many frames"
    assert hits_on(scanner, bytes(second.sent), "h2") == {"name"}


def test_a_client_that_does_not_trust_the_relay_writes_nothing(authority, echo, tmp_path):
    other = create_authority(tmp_path)
    with relay_of(other) as relay:
        port = relay.open(Port("alder", echo, {"h2": "intake"}))
        with pytest.raises(grpc.RpcError):
            call(port, authority.ca_pem, b"secret")
        context = ssl.create_default_context(cafile=str(authority.ca_path))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(f"https://127.0.0.1:{port}/", content=b"secret", verify=context, trust_env=False)
    assert b"".join(bytes(item.sent) for item in relay.connections) == b""
    assert relay.problems


def test_bytes_that_are_no_tls_are_a_problem_and_not_lost(authority):
    with relay_of(authority) as relay:
        port = relay.open(Port("alder", free_port(), {"http/1.1": "superlink"}))
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            plain.settimeout(5)
            assert not plain.recv(100).startswith(b"HTTP")
    assert relay.problems


def test_what_is_said_while_the_coordinator_is_away_is_kept(authority):
    with relay_of(authority) as relay:
        port = relay.open(Port("alder", free_port(), {"http/1.1": "superlink"}))
        context = ssl.create_default_context(cafile=str(authority.ca_path))
        with pytest.raises(httpx.TransportError):
            httpx.post(f"https://127.0.0.1:{port}/", content=b"unheard", verify=context, trust_env=False)
    assert relay.connections[0].sent.endswith(b"unheard")


# -- strace ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace here")
def test_strace_names_every_peer_beyond_the_allowed_and_the_own(tmp_path):
    program = """
import socket, subprocess, sys
own = socket.create_server(("127.0.0.1", 0 if len(sys.argv) < 4 else int(sys.argv[3])))
socket.create_connection(own.getsockname())
socket.create_connection(("127.0.0.1", int(sys.argv[1])))
child = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', %s))"
subprocess.run([sys.executable, "-c", child % sys.argv[2]], check=True)
"""
    with socket.create_server(("127.0.0.1", 0)) as allowed:
        permitted, datagram, own = allowed.getsockname()[1], free_port(), free_port()
        command = [sys.executable, "-c", program, str(permitted), str(datagram), str(own)]
        subprocess.run(traced(command, tmp_path / "log"), check=True, timeout=60)
    assert outward(tmp_path / "log", {permitted}) == {Peer("AF_INET", "127.0.0.1", datagram)}
    assert {peer.port for peer in outward(tmp_path / "log", set())} == {permitted, datagram}

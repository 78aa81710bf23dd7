"""What the front of the SuperLink costs: one object of 4 MiB that a node pushes, with the front and without.

Real SuperLink, front and TLS on loopback, in turn. The object belongs to no message, so that the SuperLink reads it
whole, checks who sends it and keeps nothing. Prints milliseconds and writes bench-out/front.json.
"""

from __future__ import annotations

import os
import ssl
import statistics
import tempfile
import time
from pathlib import Path

from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from support.superlinks import AtWork, coordinator_at_work, refusal_status

from sfumato_common.files import write_json
from sfumato_server.rounds.superlink import node_key_bytes

BYTES = 4 * 1024 * 1024
TURNS = 40


def main() -> None:
    """Measure both ways in turn."""
    os.environ.setdefault("SFUMATO_CA_PASSPHRASE", "of a bench alone")
    with tempfile.TemporaryDirectory() as folder, coordinator_at_work(Path(folder)) as work:
        node = Node(node_id=work.control.register(work.identity.node_public, "alder"))
        ways = {"direct": _client(work, work.settings.port), "front": _client(work, work.port)}
        key = node_key_bytes(work.identity.node_public)
        ways["direct"].ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=30.0))
        results: dict[str, dict[str, float]] = {}
        for name, size in (("4 MiB", BYTES), ("1 KiB", 1024)):
            push = PushObjectRequest(node=node, run_id=1, object_id="0" * 64, object_content=os.urandom(size))
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            answers: set[int] = set()
            for _ in range(TURNS):
                for way, client in ways.items():
                    began = time.perf_counter()
                    answers.add(refusal_status(client.PushObject, push))
                    seconds[way].append(time.perf_counter() - began)
            assert answers == {500}, "the SuperLink's own answer, either way"
            results[name] = {way: round(statistics.median(taken) * 1000, 2) for way, taken in seconds.items()}
            print(f"{name}: " + ", ".join(f"{way} {value:.1f} ms" for way, value in results[name].items()))
    write_json(Path("bench-out/front.json"), results)


def _client(work: AtWork, port: int) -> FleetHttpClient:
    context: ssl.SSLContext = work.site_context()
    key = work.identity.node_key
    signed = [RuntimeVersionHttpInterceptor("SuperNode"), NodeAuthHttpInterceptor(key, key.public_key())]
    return FleetHttpClient(f"https://127.0.0.1:{port}", interceptors=signed, verify=context)


if __name__ == "__main__":
    main()

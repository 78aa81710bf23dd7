"""A turn of Flower as it is shipped for `federation.py`: SuperLink and SuperNodes, subprocess isolation, TLS."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from exchange_sides import SITES, Meter, Turn, follow, lines
from support.processes import wait_for
from support.superlinks import hostile_bundle, start_run_request, stranger

from sfumato_common.supervise import Child, flower_environment, free_port
from sfumato_server.enrol import create_authority

SERVER = """
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    first = np.random.default_rng(0).random({floats}, dtype=np.float32)
    while len(list(grid.get_node_ids())) < {sites}:
        time.sleep(0.2)
    nodes = list(grid.get_node_ids())
    for number in range({exchanges} + 1):
        payload = first + np.float32(number)
        began = time.monotonic()
        content = [RecordDict({{"x": ArrayRecord([payload])}}) for _ in nodes]
        asked = [Message(c, node, "train") for c, node in zip(content, nodes)]
        replies = list(grid.send_and_receive(asked))
        assert len(replies) == len(nodes)
        for reply in replies:
            [array] = reply.content["x"].to_numpy_ndarrays()
            assert array.shape == payload.shape and np.ptp(array - payload) < 0.001
        with Path("{out}").open("a") as stream:
            stream.write(f"{{time.monotonic() - began}}\\n")
"""
CLIENT = """
import random

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    [array] = message.content["x"].to_numpy_ndarrays()
    return Message(RecordDict({"x": ArrayRecord([array + array.dtype.type(random.random())])}), reply_to=message)
"""


def turn(root: Path, exchanges: int, floats: int) -> Turn:
    """One start, and its exchanges."""
    from flwr.supercore.control.control_http_client import ControlHttpClient  # what the command `flwr` speaks with

    done, out, programs = Turn(), root / "seconds", Path(sys.executable).parent
    authority, port = create_authority(root / "coordinator", []), free_port()
    server = SERVER.format(floats=floats, sites=len(SITES), exchanges=exchanges, out=out)
    bundle = hostile_bundle({"plain/__init__.py": "", "plain/server.py": server, "plain/client.py": CLIENT},
                            "plain.server:app", "plain.client:app")  # fmt: skip
    with ExitStack() as stack:
        began = time.monotonic()
        link = _child(stack, "superlink", root, [
            str(programs / "flower-superlink"), "--host", "127.0.0.1", "--port", str(port),
            "--ssl-ca-certfile", str(authority.ca_path), "--ssl-certfile", str(authority.server_certificate_path),
            "--ssl-keyfile", str(authority.server_key_path), "--disable-runtime-dependency-installation",
        ])  # fmt: skip
        carried = stack.enter_context(lines(port))
        assert wait_for(lambda: _listens(port), 90), link.log.read_text()[-2000:]
        nodes = [
            _child(stack, site, root, [
                str(programs / "flower-supernode"), "--superlink", f"127.0.0.1:{carried[site].port}",
                "--root-certificates", str(authority.ca_path), "--port", str(free_port()),
            ])
            for site in SITES
        ]  # fmt: skip
        control = stranger(ControlHttpClient, f"127.0.0.1:{port}", authority.ca_pem)
        stack.callback(control._client.close)
        control.StartRun(start_run_request(bundle))
        follow(out, done, began, lambda: Meter([node.pid for node in nodes], carried), exchanges, 500.0)
    return done


def _child(stack: ExitStack, name: str, root: Path, command: list[str]) -> Child:
    home = root / name
    environment = flower_environment(home, [Path(sys.executable).parent], "BENCH_HOME")
    child = Child(name, command, environment, home / "run.log")
    stack.callback(child.stop)
    return child


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0

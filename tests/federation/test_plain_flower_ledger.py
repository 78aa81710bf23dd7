"""Flower as it is shipped, SuperLink and SuperNode in processes, FedAvg at the server: the ledger's mod at a site."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.processes import wait_for
from support.superlinks import hostile_bundle, start_run_request, stranger

from sfumato import ledger
from sfumato_client.ledger.standalone import open_ledger
from sfumato_common.supervise import Child, flower_environment, free_port
from sfumato_server.enrol import create_authority

pytestmark = pytest.mark.slow

SERVER = """
import json, time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    while not list(grid.get_node_ids()):
        time.sleep(0.2)
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=1, min_train_nodes=1)
    start = ArrayRecord([np.zeros(400, np.float32)])
    made = strategy.start(grid=grid, initial_arrays=start, num_rounds=2)
    [array] = made.arrays.to_numpy_ndarrays()
    said = {"std": float(array.std()), "metrics": sorted(str(m) for m in made.train_metrics_clientapp.values())}
    [node] = grid.get_node_ids()
    [reply] = grid.send_and_receive([Message(RecordDict({"arrays": start}), node, "train")])
    said["refused"] = [reply.error.code, reply.error.reason] if reply.has_error() else None
    Path("OUT").write_text(json.dumps(said))
"""
CLIENT = """
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from sfumato import ledger
from sfumato.ledger import flower
from sfumato.ledger.update import WholeUpdate


def open_site(context):
    words = {"study": "hearts", "purpose": "a test", "patients": ["anna", "berta"], "tool": flower.TOOL}
    return ledger.open_run(Path("BOOK"), **words)


app = ClientApp(mods=[flower.ledger_mod(open_site, WholeUpdate(clipping_norm=1.0, noise_multiplier=4.0))])


@app.train()
def train(message, context):
    with Path("SEEN").open("a") as stream:
        stream.write("seen ")
    [name] = message.content.array_records
    [array] = message.content[name].to_numpy_ndarrays()
    said = MetricRecord({"num-examples": 217, "loss": 0.25})
    return Message(RecordDict({name: ArrayRecord([array + 1e6]), "metrics": said}), reply_to=message)
"""


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start(stack, name, root, command):
    home = root / name
    child = Child(name, command, flower_environment(home, [Path(sys.executable).parent], "TEST_HOME"), home / "run.log")
    stack.callback(child.stop)
    return child


def test_fedavg_gets_noised_models_until_the_budget_ends_and_then_a_code(tmp_path):
    from flwr.supercore.control.control_http_client import ControlHttpClient

    ledger.create_ledger(tmp_path / "book.sqlite", site="alder", epsilon=1.5, delta=1e-5)
    out, seen, programs = tmp_path / "said.json", tmp_path / "seen", Path(sys.executable).parent
    authority, port = create_authority(tmp_path / "coordinator", []), free_port()
    client = CLIENT.replace("BOOK", str(tmp_path / "book.sqlite")).replace("SEEN", str(seen))
    code = {"plain/__init__.py": "", "plain/server.py": SERVER.replace("OUT", str(out)), "plain/client.py": client}
    with ExitStack() as stack:
        link = start(stack, "superlink", tmp_path, [
            str(programs / "flower-superlink"), "--host", "127.0.0.1", "--port", str(port),
            "--ssl-ca-certfile", str(authority.ca_path), "--ssl-certfile", str(authority.server_certificate_path),
            "--ssl-keyfile", str(authority.server_key_path), "--disable-runtime-dependency-installation",
        ])  # fmt: skip
        assert wait_for(lambda: listens(port), 90), link.log.read_text()[-2000:]
        node = start(stack, "alder", tmp_path, [
            str(programs / "flower-supernode"), "--superlink", f"127.0.0.1:{port}",
            "--root-certificates", str(authority.ca_path), "--port", str(free_port()),
        ])  # fmt: skip
        control = stranger(ControlHttpClient, f"127.0.0.1:{port}", authority.ca_pem)
        stack.callback(control._client.close)
        control.StartRun(start_run_request(hostile_bundle(code, "plain.server:app", "plain.client:app")))
        assert wait_for(out.exists, 200), link.log.read_text()[-1500:] + node.log.read_text()[-1500:]
    said = json.loads(out.read_text())
    # two rounds of noise of sd 8 on zeros; an update of a million each was clipped to norm 1
    assert 9.5 < said["std"] < 13.5
    assert "217" not in str(said["metrics"])
    assert "loss" not in str(said["metrics"])
    assert said["refused"] == [6, "budget-exceeded"]
    assert seen.read_text().split() == ["seen", "seen"]
    with open_ledger(tmp_path / "book.sqlite") as book:
        assert len(book.entries()) == 2
        assert not book.unsettled_charges()

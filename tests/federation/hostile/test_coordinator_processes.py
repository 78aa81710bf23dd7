"""Whoever reaches the coordinator wants code of theirs to run there: real SuperLink, front and ServerApp processes."""

import re
import sys
from pathlib import Path

import httpx
import pytest
from support.processes import SMALL_PLAN, wait_for
from support.superlinks import (
    coordinator_at_work,
    hostile_bundle,
    refusal_status,
    start_run_request,
    start_stock_superlink,
    stranger,
)

from sfumato_common.files import write_json
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import descendants, free_port
from sfumato_server.coordinator.run import _start_study
from sfumato_server.enrol import create_authority
from sfumato_server.rounds.superlink import (
    Control,
    code_free_bundle,
)
from sfumato_server.rounds.superlink_program import control_token

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(280),
    pytest.mark.slow,
]


def evil_bundle(proof: Path) -> bytes:
    """A bundle whose server side would write down that it ran, and which of the coordinator's keys it could read."""
    code = f"""
import os, pathlib
from flwr.serverapp import ServerApp
keys = pathlib.Path(os.environ["SFUMATO_COORDINATOR_HOME"], "authority")
pathlib.Path({str(proof)!r}).write_text(" ".join(sorted(p.name for p in keys.iterdir() if p.read_bytes())))
app = ServerApp()
@app.main()
def main(grid, context): pass
"""
    files = {"evil/__init__.py": "", "evil/server.py": code, "torch.py": code, "sfumato_server/__init__.py": code}
    return hostile_bundle(files, "evil.server:app", "evil.server:app")


def test_flowers_own_superlink_runs_a_strangers_code(tmp_path):
    # what is defended against: without it, nothing below would be worth its name
    from flwr.supercore.control.control_http_client import ControlHttpClient

    home, port, proof = tmp_path / "coordinator", free_port(), tmp_path / "proof"
    authority = create_authority(home)
    child = start_stock_superlink(authority, port, home)
    try:
        client = stranger(ControlHttpClient, f"127.0.0.1:{port}", authority.ca_pem)
        Control(f"127.0.0.1:{port}", authority.ca_pem, b"none").wait_until_up(child, 90)
        client.StartRun(start_run_request(evil_bundle(proof)))
        assert wait_for(proof.exists, 90)
    finally:
        child.stop()
    assert "ca.key" in proof.read_text()


def listening(pids) -> set[str]:
    """Local addresses, as /proc writes them, on which one of these processes listens."""
    sockets = {link.readlink().name for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1])
    return found


def test_nobodys_code_runs_and_nobody_calls_but_the_coordinator(tmp_path):
    with coordinator_at_work(tmp_path) as work:
        attack(work, tmp_path / "proof")


def attack(work, proof):
    from flwr.proto.control_pb2 import ListRunsRequest, RegisterNodeRequest
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.runtime import RuntimeHttpClient

    home, settings, children, bundle = work.home, work.settings, work.children, evil_bundle(proof)
    write_json(home.plan_file, parse(SMALL_PLAN, Plan, "plan").model_dump(mode="json"))

    # from outside, as a hostile hospital with a certificate in force: there is no such place
    front = f"https://127.0.0.1:{work.port}"
    with httpx.Client(base_url=front, verify=work.site_context(), trust_env=False) as hospital:
        content = start_run_request(bundle).SerializeToString()
        for path in ("/v1/control/start-run", "/v1/control/list-runs", "/v1/runtime/acquire-task", "/docs"):
            assert hospital.post(path, content=content).status_code == 404
    # and as anybody else: no handshake
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{front}/v1/fleet/get-run", verify=False, trust_env=False)

    # as another user of the coordinator's machine, who reaches loopback and holds no secret
    local = stranger(ControlHttpClient, settings.address, work.authority.ca_pem)
    assert refusal_status(local.StartRun, start_run_request(bundle)) == 401
    assert refusal_status(local.RegisterNode, RegisterNodeRequest(public_key=b"x")) == 401
    assert refusal_status(local.ListRuns, ListRunsRequest()) == 401
    runtime = stranger(RuntimeHttpClient, settings.address, work.authority.ca_pem)
    acquire = AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
    assert refusal_status(runtime.AcquireTask, acquire) == 401

    # even who could start runs would start nothing: the oldest task is the stranger's, the next the coordinator's own
    work.control.start_run(bundle)
    home.write_nodes({"alder": work.control.register(work.identity.node_public, "alder")})
    children.append(_start_study(settings, work.control.start_run(code_free_bundle())))
    log = home.logs / "study.log"
    assert wait_for(lambda: home.status_file.exists() or children[-1].poll() is not None, 120)
    assert children[-1].poll() is None, log.read_text()[-3000:]
    assert "a run that this coordinator did not start" in log.read_text()

    # what other users of the machine see: one port on loopback, and no secret
    pids = {pid for child in children for pid in (child.pid, *descendants(child.pid))}
    assert pids == {child.pid for child in children}, "no process but these two"
    assert listening(pids) == {f"0100007F:{settings.port:04X}"}
    seen = [Path(f"/proc/{pid}/{what}").read_bytes().decode() for pid in pids for what in ("cmdline", "environ")]
    assert not any(re.search("[0-9a-f]{32}", text) for text in seen)
    assert not any("--token" in text for text in seen)
    secret = home.superlink_secret.read_bytes()
    said = b"".join(path.read_bytes() for path in home.logs.iterdir())
    assert secret not in said and control_token(secret).encode() not in said
    assert not proof.exists()
    assert not list(home.root.rglob("*.py")), "nothing of any bundle was unpacked"


def test_a_task_without_the_secret_is_the_coordinators_voice(tmp_path):
    # what the secret is for: whoever takes the task first speaks to the hospitals as the coordinator
    from flwr.proto.runtime_pb2 import AcquireTaskRequest, GetNodesRequest
    from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    home, port = tmp_path / "coordinator", free_port()
    authority = create_authority(home)
    child = start_stock_superlink(authority, port, home, "process")
    try:
        Control(f"127.0.0.1:{port}", authority.ca_pem, b"none").wait_until_up(child, 90)
        local = stranger(RuntimeHttpClient, f"127.0.0.1:{port}", authority.ca_pem)
        tokens = []

        def acquire():
            answer = local.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
            tokens.extend([answer.token] if answer.HasField("task") else [])
            return tokens

        Control(f"127.0.0.1:{port}", authority.ca_pem, b"none").start_run(code_free_bundle())
        assert wait_for(acquire, 20)
        local._interceptors += (RuntimeTokenHttpInterceptor(tokens[0]),)
        assert list(local.GetNodes(GetNodesRequest()).nodes) == []
    finally:
        child.stop()

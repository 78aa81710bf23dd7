"""The coordinator's own `flwr-serverapp`: runs the installed app for its own run and leaves the bundle unread.

Flower's runner unpacks the bundle (FAB) that a run was started with and runs the code in it; whoever may start a run
may then run code here. This program takes one kind of task, that of ServerApps, of one run, that which this coordinator
started; it leaves every other task lying. Secret and token never stand in a command line.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

from sfumato_common.errors import FederationError, SfumatoError
from sfumato_common.logs import start_log, take_over_flower
from sfumato_server.rounds.superlink_program import require_flower

log = logging.getLogger(__name__)
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_ACQUIRE_SECONDS = 300.0
_POLL_SECONDS = 0.2


def runtime_client(address: str, ca_pem: bytes, secret: bytes) -> Any:
    """A client of the SuperLink's Runtime API that signs the request for a task with the SuperLink's secret."""
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
    from flwr.supercore.retry import make_simple_http_retry_invoker
    from flwr.supercore.runtime import RuntimeHttpClient

    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=ca_pem,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )


def acquire_token(client: Any, run_id: int, seconds: float = _ACQUIRE_SECONDS) -> str:
    """The token of the ServerApp's task of run `run_id`. Tasks of other runs are taken from the queue and dropped.

    Raises FederationError when there is none within `seconds`.
    """
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        if not answer.HasField("task"):
            time.sleep(_POLL_SECONDS)
        elif (answer.task.run_id, answer.task.type) == (run_id, TaskType.SERVER_APP):
            return str(answer.token)
        else:
            log.warning("refused: the task of a run that this coordinator did not start")
    raise FederationError("the SuperLink has no task for the study's run; start the coordinator again")


def run_app(address: str, ca_pem: bytes, token: str, run_id: int) -> None:
    """Run the installed ServerApp over the SuperLink's Grid and report its end; texts of exceptions stay here."""
    from flwr.app import Context, RecordDict
    from flwr.common.constant import SUPERLINK_NODE_ID, SubStatus
    from flwr.common.serde import run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    grid = HttpGrid(address, root_certificates=ca_pem, token=token)
    runtime = grid._runtime_client
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(runtime))
    heartbeat.start()
    from sfumato_server.coordinator.app import app  # torch takes seconds to load: the task's heartbeat goes first

    end, details = SubStatus.FAILED, "failed"
    try:
        given = runtime.PullTaskInput(PullTaskInputRequest())  # the run's bundle is in it too: not looked at
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = given.task_id, run_id, SUPERLINK_NODE_ID
        grid.set_run(run_from_proto(given.run))
        app(grid=grid, context=Context(run_id, SUPERLINK_NODE_ID, {}, RecordDict(), {}))
        end, details = SubStatus.COMPLETED, ""
    finally:
        runtime.PushTaskOutput(PushTaskOutputRequest(sub_status=end, details=details))
        heartbeat.stop()
        grid.close()


def main() -> None:
    """Entry point: address, files and the run's number from the command line; the home from the environment."""
    parser = argparse.ArgumentParser(description="Run the coordinator's installed ServerApp for one run.")
    parser.add_argument("--superlink", required=True, help="host:port of the SuperLink on this machine")
    parser.add_argument("--ca", type=Path, required=True, help="PEM of the federation's CA")
    parser.add_argument("--secret-file", type=Path, required=True, help="the SuperLink's secret")
    parser.add_argument("--run-id", type=int, required=True, help="the run that this coordinator started")
    given = parser.parse_args()
    start_log()
    require_flower()
    take_over_flower()
    ca_pem = given.ca.read_bytes()
    client = runtime_client(given.superlink, ca_pem, given.secret_file.read_bytes())
    try:
        token = acquire_token(client, given.run_id)
    except SfumatoError as error:
        log.error("%s", error)
        raise SystemExit(1) from None
    finally:
        client.close()
    run_app(given.superlink, ca_pem, token, given.run_id)


if __name__ == "__main__":
    main()

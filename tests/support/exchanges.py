"""One real site under its own supervision, a real SuperLink, and a channel to ask the site over it. Linux only."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfumato_client.site.home import ADDRESS_FILE, SiteHome
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import Child, descendants
from sfumato_server.coordinator.flower_channel import FlowerChannel
from sfumato_server.coordinator.serverapp import acquire_token, runtime_client
from sfumato_server.rounds.superlink import code_free_bundle
from support.homes import make_home
from support.processes import wait_for
from support.studies import PLAN, POLICY
from support.superlinks import AtWork, coordinator_at_work

SITE = "alder"
NODE = (
    "import sys; from pathlib import Path; from sfumato_client.flower.node import run_node; run_node(Path(sys.argv[1]))"
)


@dataclass
class Exchanges:
    """The site's home, the process that supervises its node, and the coordinator's end."""

    home: SiteHome
    plan: Plan
    node: Child
    channel: FlowerChannel

    def hello(self, seconds: float) -> Reply | None:
        """What the site answers to a greeting; None when it did not within `seconds`."""
        return self._said(Request(PROTOCOL, self.plan.digest, "hello", "", 0, {}), seconds)

    def ask(self, stage: str, seconds: float) -> Reply | None:
        """What the site answers to round 1 of a stage that brings nothing; None when it did not within `seconds`."""
        return self._said(Request(PROTOCOL, self.plan.digest, "stage", stage, 1, {}), seconds)

    def _said(self, request: Request, seconds: float) -> Reply | None:
        replies: dict[str, Reply] = {}

        def take(site: str, reply: Reply) -> bool:
            replies[site] = reply
            return True

        self.channel.exchange({SITE: request}, seconds, take, {SITE})
        return replies.get(SITE)

    def join(self, seconds: float = 120.0) -> None:
        """Wait until the site is connected."""
        assert wait_for(lambda: SITE in self.channel.online(), seconds), self.said()

    def said(self) -> str:
        """The ends of the site's logs."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.home.logs.glob("*.log")))

    def processor_seconds(self) -> float:
        """What the site's processes have used so far, those that ended included."""
        ticks = 0
        for pid in [self.node.pid, *descendants(self.node.pid)]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def site_at_work(
    root: Path,
    command: list[str] | None = None,
    host: str = "127.0.0.1",
    environment: Callable[[int], Mapping[str, str]] = lambda port: {},
) -> Iterator[Exchanges]:
    """A coordinator and one site below `root`; `command`, given the home, runs the site's node.

    `host` is what the site knows the coordinator by; `environment`, given its port, is added to that of the node.
    """
    with coordinator_at_work(root, SITE, [host]) as work:
        plan = parse(PLAN, Plan, "plan")
        home = make_home(root / "home", SITE, plan, POLICY, 40)
        shutil.copytree(work.identity.folder, home.identity, dirs_exist_ok=True)
        address = f"{host}:{work.port}"
        (home.root / ADDRESS_FILE).write_text(json.dumps({"coordinator": address}))
        number = work.control.register(work.identity.node_public, SITE)
        start = command or [sys.executable, "-P", "-c", NODE]
        node = Child("site", [*start, str(home.root)], {**os.environ, **environment(work.port)}, home.logs / "run.log")
        work.children.append(node)
        with grid_of(work) as grid:
            yield Exchanges(home, plan, node, FlowerChannel(grid, lambda: {SITE: number}, lambda: {SITE}, 300.0))


@contextmanager
def grid_of(work: AtWork):
    """Flower's Grid for a run of this coordinator, as `coordinator.serverapp` opens it."""
    from flwr.common.constant import SUPERLINK_NODE_ID
    from flwr.common.serde import run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    run = work.control.start_run(code_free_bundle())
    client = runtime_client(work.settings.address, work.authority.ca_pem, work.home.superlink_secret.read_bytes())
    token = acquire_token(client, run)
    client.close()
    grid = HttpGrid(work.settings.address, root_certificates=work.authority.ca_pem, token=token)
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(grid._runtime_client))
    heartbeat.start()
    try:
        given = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = given.task_id, run, SUPERLINK_NODE_ID
        grid.set_run(run_from_proto(given.run))
        yield grid
    finally:
        heartbeat.stop()
        grid.close()

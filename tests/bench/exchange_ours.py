"""A turn of Sfumato for `federation.py`: front, SuperLink, and sites with their SuperNode, worker and forks."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from exchange_sides import SITES, Meter, Turn, lines
from support.exchanges import grid_of
from support.homes import make_home
from support.processes import wait_for
from support.studies import PLAN, POLICY
from support.superlinks import coordinator_at_work, enrolled

from sfumato_client.site.home import ADDRESS_FILE
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import Child
from sfumato_server.coordinator.flower_channel import FlowerChannel

ARRAY = "x"
_SITE = Path(__file__).with_name("echo_site.py")


def turn(root: Path, exchanges: int, floats: int) -> Turn:
    """One start, and its exchanges."""
    done, plan = Turn(), parse(PLAN, Plan, "plan")
    homes = {site: make_home(root / f"{site}-home", site, plan, POLICY, 40) for site in SITES}
    first = np.random.default_rng(0).random(floats, dtype=np.float32)
    began = time.monotonic()
    with ExitStack() as stack:
        work = stack.enter_context(coordinator_at_work(root, SITES[0]))
        carried = stack.enter_context(lines(work.port))
        nodes, children = {}, []
        for site, home in homes.items():
            identity = work.identity if site == SITES[0] else enrolled(work.home, root, site)
            shutil.copytree(identity.folder, home.identity, dirs_exist_ok=True)
            (home.root / ADDRESS_FILE).write_text(json.dumps({"coordinator": f"127.0.0.1:{carried[site].port}"}))
            nodes[site] = work.control.register(identity.node_public, site)
            command = [sys.executable, "-P", str(_SITE), str(home.root)]
            children.append(Child(site, command, dict(os.environ), home.logs / "run.log"))
        work.children += children
        channel = FlowerChannel(stack.enter_context(grid_of(work)), lambda: nodes, lambda: set(SITES), 300.0)
        assert wait_for(lambda: channel.online() == set(SITES), 240), "a site did not join"

        def exchange(number: int) -> float:
            arrays = {ARRAY: first + np.float32(number)}
            request = Request(PROTOCOL, plan.digest, "stage", plan.base, 1, arrays)
            replies: dict[str, Reply] = {}
            began = time.monotonic()
            channel.exchange(dict.fromkeys(SITES, request), 280.0, lambda *told: _keep(replies, *told), set(SITES))
            took = time.monotonic() - began
            assert set(replies) == set(SITES), replies
            assert all(np.ptp(reply.arrays[ARRAY] - arrays[ARRAY]) < 0.001 for reply in replies.values())
            return took

        exchange(0)
        done.start_s = time.monotonic() - began
        meter = Meter([child.pid for child in children], carried)
        done.seconds = [exchange(number + 1) for number in range(exchanges)]
        meter.fill(done, exchanges)
    return done


def _keep(replies: dict, site: str, reply: object) -> bool:
    replies[site] = reply
    return True

"""The worker of a real site: slow to start, asked by strangers, crashed in a task, killed. Linux only."""

import os
import re
import signal
import sys
import time

import pytest
from support.exchanges import site_at_work
from support.odd_worker import command
from support.processes import command_of, running, tree, wait_for
from support.superlinks import refusal_status

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(420),
]


def worker_of(site) -> int:
    """The worker itself: the first of its kind below the node, whose forks have its command line too."""
    return next((pid for pid in tree(site.node.pid) if "odd_worker.py --worker" in command_of(pid)), 0)


def test_one_worker_answers_one_task_after_another_and_no_stranger_gets_one(tmp_path):
    with site_at_work(tmp_path, command(0)) as site:
        site.join()
        for _ in range(2):
            reply = site.hello(90)
            assert reply and reply.status == "ok", site.said()
        worker = worker_of(site)
        assert wait_for(lambda: tree(worker) == [worker], 10), "a task's process ends with its answer"
        a_stranger_gets_no_task(site)
        family = tree(site.node.pid)
        os.kill(site.node.pid, signal.SIGINT)
        assert site.node.wait(30) is not None
    assert wait_for(lambda: not running(family), 15), [command_of(pid) for pid in running(family)]


@pytest.mark.slow
def test_the_worker_outlives_a_task_that_crashes_and_the_site_a_worker_that_is_killed(tmp_path):
    with site_at_work(tmp_path, command(0)) as site:
        site.join()
        assert site.hello(90) is not None, site.said()
        worker = worker_of(site)
        (site.home.root / "crash").touch()
        reply = site.hello(120)  # the node waits for the lost task's heartbeat, and the channel asks again
        assert not (site.home.root / "crash").exists()
        assert reply and reply.status == "ok", site.said()
        assert worker_of(site) == worker, "the same worker as before the crash"

        os.kill(worker, signal.SIGKILL)
        reply = site.hello(120)
        assert reply and reply.status == "ok", site.said()
        assert worker_of(site) not in (0, worker), "the site started another"


@pytest.mark.slow
def test_work_that_hangs_is_told_from_work_ended_and_done_again_under_its_charge(tmp_path):
    """Its node is connected and its heartbeats go on: to the coordinator alone it would be work, for hours."""
    with site_at_work(tmp_path, command(0)) as site:
        site.join()
        assert site.hello(90) is not None, site.said()
        (site.home.root / "hang").touch()
        reply = site.ask("spectral", 240)
        assert not (site.home.root / "hang").exists()
        assert reply and reply.status == "ok", site.said()
        assert "no step and no processor time for 10 s: the work hangs" in site.said()
        with site.home.open_ledger() as ledger:
            assert [(entry.purpose, entry.round) for entry in ledger.entries()] == [("spectral", 1)]


def a_stranger_gets_no_task(site):
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    words = next(command_of(pid) for pid in tree(site.node.pid) if "odd_worker.py --worker" in command_of(pid))
    assert site.home.worker_secret.read_text() not in words
    assert site.home.worker_secret.stat().st_mode & 0o077 == 0
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    address = re.search(r"--runtime (\S+)", words)[1]
    client = RuntimeHttpClient.from_server_address(
        server_address=address, insecure=True, root_certificates=None, interceptors=[version]
    )
    try:
        assert refusal_status(client.AcquireTask, AcquireTaskRequest(supported_task_types=["flwr-clientapp"])) == 401
    finally:
        client.close()


@pytest.mark.slow
def test_a_machine_that_imports_for_longer_than_a_tasks_heartbeat_takes_part(tmp_path):
    with site_at_work(tmp_path, command(35)) as site:
        site.join()
        began = time.monotonic()
        reply = site.hello(240)
        assert reply and reply.status == "ok", site.said()
        assert time.monotonic() - began > 15, "the worker was not slow: this shows nothing"

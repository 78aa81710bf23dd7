"""What every fork of the worker starts from: all imports done, one thread, randomness of its own; and restarts."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sfumato_client.egress.supernode import SINGLE
from sfumato_client.flower import node
from sfumato_common.errors import FederationError

FORKS = """
import json, os, sys, time
from sfumato_client.flower import worker
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_client.audit import verdict
from sfumato_common.mechanisms import sealed

import torch
asked, available = [], torch.cuda.is_available
torch.cuda.is_available = torch.cuda.device_count = lambda: asked.append(1) or available()
worker.preload()
import numpy as np
from threadpoolctl import threadpool_info
noise = SecureNoise()  # one that a module might keep
known = set(sys.modules)

def answer(address, task, app):
    from sfumato_client.flower.app import app as _
    from sfumato_client.site.making import Maker
    from sfumato_client.training import train
    threads = {pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()}
    heavy = ("torch", "scipy", "opacus", "flwr")
    new = sorted(name for name in set(sys.modules) - known if name.split(".")[0] in heavy)
    said = [np.random.bytes(8).hex(), noise.words(1).tolist(), SecureNoise().words(1).tolist()]
    said += [key.tag(b"the same").hex() for key in (sealed._KEY, verdict._KEY)]
    print(json.dumps([said, threads["openblas"], torch.get_num_threads(), new]), flush=True)

tasks = [1, 2]
def next_task(address, secret):
    if not tasks:
        print(json.dumps([len(os.listdir("/proc/self/task")), bool(asked or torch.cuda.is_initialized())]), flush=True)
        raise SystemExit
    return tasks.pop()
worker.answer_task, worker.next_task = answer, next_task
worker.serve("", b"", None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads through /proc")
def test_every_fork_has_its_imports_and_its_own_random_numbers_and_keys():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", FORKS],
        env={**environment, **SINGLE}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    *forks, [threads, cuda] = map(json.loads, done.stdout.splitlines())
    assert (threads, cuda) == (1, False), "no fork works of a process that has threads or touched a card"
    (first, *_), (second, blas, computing, new) = forks
    assert all(mine != other for mine, other in zip(first, second, strict=True))
    assert blas == computing, "NumPy's sums have as many threads in a fork as torch's"
    assert new == [], "imported in every fork again"


def test_a_worker_that_dies_is_started_again_and_not_without_end(monkeypatch):
    clock, started = [0.0], []
    monkeypatch.setattr(node, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: None))
    monkeypatch.setattr(
        node, "start_worker", lambda settings: started.append(settings) or SimpleNamespace(poll=lambda: 1)
    )
    worker = node._Worker("settings")
    for _ in range(10):  # once in a while is no fault of the machine's
        clock[0] += 3600
        worker.keep_running()
    assert len(started) == 11
    for _ in range(3):
        worker.keep_running()
    with pytest.raises(FederationError, match="does not run"):
        worker.keep_running()

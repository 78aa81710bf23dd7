"""The site's resident worker: imports everything once, takes the SuperNode's tasks, and forks itself for each.

A fork ends with its answer, so nothing of a patient stays in memory. The worker itself reads no message and no file of
the home but the secret that it shares with the SuperNode, has one thread, and holds no connection while it forks.
"""

from __future__ import annotations

import argparse
import gc
import logging
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import sfumato_client
import sfumato_common
from sfumato_client.egress.flower_hooks import Task, answer_task, next_task, require_flower
from sfumato_common.logs import start_log, take_over_flower
from sfumato_common.protocol.flower import fetch_sooner
from sfumato_common.supervise import run_in_fork

log = logging.getLogger(__name__)
# not for a message: command lines and the data's way in; and what is loaded where it is used
_LEFT_OUT = ("cli", "ingest", "tabular", "generate")
_LOADED_WHERE_USED = (
    "dp_accounting.gaussian_mechanism",
    "dp_accounting.pld.privacy_loss_distribution",
    "dp_accounting.rdp",
    "flwr.supernode.runtime.run_clientapp",
    "opacus.accountants.analysis.prv",
    "opacus.grad_sample",
    "scipy.optimize",
    "scipy.special",
    "scipy.stats",
    "threadpoolctl",
    "torch.func",
)


def preload() -> None:
    """Import whatever a message may need, before there is one: a slow machine then loses no message by importing."""
    for package in (sfumato_client, sfumato_common):
        for name in _modules(package):
            import_module(name)
    for name in _LOADED_WHERE_USED:
        import_module(name)


def _modules(package: ModuleType) -> Iterator[str]:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name.rpartition(".")[2] in _LEFT_OUT:
            continue
        yield found.name
        if found.ispkg:
            yield from _modules(import_module(found.name))


def serve(address: str, secret: bytes, app: Any) -> None:
    """Answer the SuperNode's tasks one after another, each in a fork of this process; never returns."""
    gc.collect()
    gc.freeze()  # a fork then shares the pages of all that was imported
    while True:
        task = next_task(address, secret)
        code = run_in_fork(lambda task=task: _answer(address, task, app))  # type: ignore[misc]
        if code:
            log.error("a task ended with code %d; the worker goes on", code)


def _answer(address: str, task: Task, app: Any) -> None:
    """In the fork: what a process of its own would have had, fresh random numbers and a thread a core."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits

    np.random.seed()  # NumPy's own generator would repeat itself in every fork; noise takes a new key by itself
    threadpool_limits(torch.get_num_threads(), user_api="blas")
    answer_task(address, task, app)


def main() -> None:
    """Entry point of the worker: where the SuperNode is and their secret; the home comes from the environment."""
    parser = argparse.ArgumentParser(description="Answer the tasks of this site's SuperNode.")
    parser.add_argument("--runtime", required=True, help="host:port of the SuperNode on this machine")
    parser.add_argument("--secret-file", type=Path, required=True, help="the secret that it shares with the worker")
    given = parser.parse_args()
    require_flower()
    preload()
    start_log()
    take_over_flower(messages=False)
    fetch_sooner()
    from sfumato_client.flower.app import app

    serve(given.runtime, given.secret_file.read_bytes(), app)


if __name__ == "__main__":
    main()

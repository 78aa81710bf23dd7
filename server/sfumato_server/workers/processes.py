"""Workers that are processes of this machine; each takes a task when it has answered the one before."""

from __future__ import annotations

import json
import os
import queue
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sfumato_common.errors import SfumatoError
from sfumato_common.supervise import Child
from sfumato_server.workers.tasks import Submit, Task, Wait, Where

_LAST_WORDS_SECONDS = 5.0


@contextmanager
def processes(function: str, where: Where) -> Iterator[Submit]:
    """As many as are asked for; none of them is left afterwards."""
    free: queue.Queue[Child] = queue.Queue()

    def ask(task: Task) -> dict[str, Any]:
        child = free.get()
        try:
            return _asked(child, task)
        finally:
            free.put(child)

    def submit(task: Task) -> Wait:
        return threads.submit(ask, task).result

    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        threads = ThreadPoolExecutor(where.workers)
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)
        for number in range(where.workers):
            child = _start(function, number, logs)
            stack.callback(child.stop)
            free.put(child)
        yield submit


def _start(function: str, number: int, logs: Path) -> Child:
    command = [sys.executable, "-P", "-m", "sfumato_server.workers.program", function]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return Child(f"worker {number}", command, environment, logs / f"{number}.log", piped=True)


def _asked(child: Child, task: Task) -> dict[str, Any]:
    try:
        child.to_child.write(json.dumps(task).encode("ascii") + b"\n")
        child.to_child.flush()
        line = child.from_child.readline()
    except (OSError, ValueError):  # it is gone, and its pipes with it
        line = b""
    if not line:
        child.wait(_LAST_WORDS_SECONDS)
        said = child.log.read_text(errors="replace").strip().splitlines() or ["it was killed"]
        raise SfumatoError(f"a worker ended: {said[-1][:200]}; start again, with fewer workers if memory is short")
    told: dict[str, Any] = json.loads(line)
    return told

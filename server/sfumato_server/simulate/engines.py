"""Which engine keeps the workers of a simulation: one line each, and all of them pass one suite of contract tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.errors import ConfigError
from sfumato_common.generators.base import import_named
from sfumato_server.simulate.workers import Workers

PROCESSES, RAY = "processes", "ray"


@dataclass(frozen=True)
class Where:
    """On what a simulation runs: an engine, so many workers (None: by the engine), and what Ray alone has.

    `address` is a Ray cluster's; `gpus` is a worker's share of accelerators.
    """

    engine: str = PROCESSES
    workers: int | None = None
    address: str | None = None
    gpus: float = 0.0


# To add an engine: one line here. Each makes `Workers` of a folder and a `Where`, or raises ConfigError.
ENGINES = {
    PROCESSES: "sfumato_server.simulate.engines:pool",
    RAY: "sfumato_server.simulate.on_ray:on_ray",
}


def pool(folder: Path, where: Where) -> Workers:
    """Processes of this machine, one a core."""
    from sfumato_server.simulate.workers import Pool

    if where.address or where.gpus:
        raise ConfigError("a Ray address and a worker's GPUs are for the engine 'ray': add --on ray")
    return Pool(folder, where.workers or len(os.sched_getaffinity(0)))


@contextmanager
def started(folder: Path, where: Where) -> Iterator[Workers]:
    """The workers of an engine, whose home and logs are below `folder`; none is left afterwards. Raises ConfigError."""
    if where.engine not in ENGINES:
        raise ConfigError(f"'{where.engine}' is no engine; choose one of: {', '.join(ENGINES)}")
    make: Callable[[Path, Where], Workers] = import_named(ENGINES[where.engine])
    workers = make(folder, where)
    try:
        yield workers
    finally:
        workers.stop()

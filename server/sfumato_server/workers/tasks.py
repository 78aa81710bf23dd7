"""Runs one function over many tasks: here, by processes of this machine, or on Ray; answers come in the tasks' order.

Task and answer are what JSON has. The function is named as `package.module:name`, and is what is installed where it
runs. Tasks are made as they are needed, a few ahead of what is being done, so that memory does not grow with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sfumato_common.errors import ConfigError, NoRoomError, SfumatoError, VerificationError
from sfumato_common.generators.base import import_named

Task = Mapping[str, Any]
Answer = dict[str, Any]
# gives what a worker tells, once it does
Wait = Callable[[], dict[str, Any]]
# takes a task, and gives what waits for its answer
Submit = Callable[[Task], Wait]

PROCESSES, RAY = "processes", "ray"
ENGINES = {
    PROCESSES: "sfumato_server.workers.processes:processes",
    RAY: "sfumato_server.workers.on_ray:on_ray",
}
_AHEAD = 2  # tasks a worker that are made before the first of them is answered
_SAID = {kind.exit_code: kind for kind in (ConfigError, NoRoomError, VerificationError)}


@dataclass(frozen=True)
class Where:
    """By how many workers, and of which engine; `address` is a Ray cluster's, whose machines share the folders."""

    workers: int = 1
    engine: str = PROCESSES
    address: str | None = None

    def check(self) -> None:
        """Raise ConfigError where there can be no such workers."""
        if self.workers < 1:
            raise ConfigError("--workers takes a number from 1")
        if self.engine not in ENGINES:
            raise ConfigError(f"'{self.engine}' is no engine; choose one of: {', '.join(ENGINES)}")
        if self.address is not None and self.engine != RAY:
            raise ConfigError("a Ray address is for the engine 'ray': add --on ray")


ALONE = Where()


def run_tasks(function: str, tasks: Iterable[Task], where: Where = ALONE) -> Iterator[tuple[Task, Answer]]:
    """Each task with its answer, in order. One process does it itself.

    Raises what the function raised, where that is an error of ours; SfumatoError where a worker died; ConfigError where
    there can be no such workers.
    """
    where.check()
    if where.engine == PROCESSES and where.workers == 1:
        do: Callable[[Task], Answer] = import_named(function)
        for task in tasks:
            yield task, do(task)
        return
    make: Callable[[str, Where], AbstractContextManager[Submit]] = import_named(ENGINES[where.engine])
    with make(function, where) as submit:
        waiting: deque[tuple[Task, Wait]] = deque()
        for task in tasks:
            waiting.append((task, submit(task)))
            if len(waiting) >= _AHEAD * where.workers:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)


def _next(waiting: deque[tuple[Task, Wait]]) -> tuple[Task, Answer]:
    task, wait = waiting.popleft()
    return task, checked(wait())


def done(do: Callable[[Task], Answer], task: Task) -> dict[str, Any]:
    """The answer to a task, or what was wrong with it, as a worker tells it."""
    try:
        return {"answer": do(task)}
    except SfumatoError as error:
        return {"error": str(error), "code": error.exit_code}


def checked(told: Mapping[str, Any]) -> Answer:
    """The answer in what a worker tells. Raises what it says was wrong."""
    if "error" in told:
        raise _SAID.get(told["code"], SfumatoError)(told["error"])
    answer: Answer = told["answer"]
    return answer

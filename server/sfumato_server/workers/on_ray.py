"""Workers that are tasks of Ray, on this machine or on all machines of a cluster.

What is read and written is named by paths: the machines of a cluster share those folders, by the same paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sfumato_common import __version__
from sfumato_common.errors import ConfigError, SfumatoError
from sfumato_common.generators.base import import_named
from sfumato_server.workers.ray_start import leave_ray, start_ray
from sfumato_server.workers.tasks import Submit, Task, Wait, Where, done


@contextmanager
def on_ray(function: str, where: Where) -> Iterator[Submit]:
    """As many tasks at a time as Ray has room for. Raises ConfigError where Ray does not answer."""
    session = start_ray(where.workers, where.address)
    import ray

    remote = ray.remote(_done_here).options(num_cpus=1, max_retries=0)

    def submit(task: Task) -> Wait:
        asked = remote.remote(function, dict(task), __version__)

        def wait() -> dict[str, Any]:
            try:
                told: dict[str, Any] = ray.get(asked)
            except ray.exceptions.RayError as error:
                said = next(iter(str(error).strip().splitlines()), "")[:200]
                raise SfumatoError(f"a worker on Ray ended: {type(error).__name__} {said}".rstrip()) from None
            return told

        return wait

    try:
        yield submit
    finally:
        leave_ray(session)


def _done_here(function: str, task: dict[str, Any], version: str) -> dict[str, Any]:
    """On a machine of Ray's: the answer of what is installed there."""
    if version != __version__:
        error = ConfigError(f"a machine of the Ray cluster has Sfumato {__version__}, this one {version}: install one")
        return {"error": str(error), "code": error.exit_code}
    return done(import_named(function), task)

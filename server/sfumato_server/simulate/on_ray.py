"""Workers of a simulation on Ray: one actor each, on this machine or all machines of a cluster.

An actor holds one worker process on its machine and passes frames on to it; Ray sees no ledger and no image by itself.
A site stays with the actor that made its home, so that its ledger is touched by one process. Homes are below the
simulation's folder where Ray runs on this machine alone; on a cluster each actor has a folder of its own for them on
its machine's disk, and no folder is shared.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sfumato_common import __version__
from sfumato_common.errors import ConfigError, FederationError
from sfumato_common.protocol.frames import Frame, pack_frame, unpack_frame
from sfumato_common.types import Arrays
from sfumato_server.simulate.engines import Where
from sfumato_server.simulate.hosts import Host
from sfumato_server.simulate.workers import Worker, Workers
from sfumato_server.workers.ray_start import as_config_error, leave_ray, start_ray

_START_SECONDS = 180.0


def on_ray(folder: Path, where: Where) -> Workers:
    """Actors of a Ray that is started here, or of the cluster at `where.address`. Raises ConfigError."""
    number = where.workers or len(os.sched_getaffinity(0))  # Ray counts a core for each
    session = start_ray(number, where.address)
    try:
        return _RayWorkers(folder, _number(where, None if where.address else number), where.gpus, session)
    except BaseException:
        leave_ray(session)
        raise


def _number(where: Where, most: int | None = None) -> int:
    """How many workers: as asked, else as many as have room, `most` at most. Raises ConfigError."""
    import ray

    resources: Mapping[str, float] = ray.cluster_resources()
    room, gpus = int(resources.get("CPU", 0.0)), where.gpus
    if gpus:
        shared = int(resources.get("GPU", 0.0)) * int(1.0 / gpus) if gpus <= 1.0 else resources.get("GPU", 0.0) // gpus
        room = min(room, int(shared))
    number = where.workers or min(room, most or room)
    if not 0 < number <= room:
        share = f" with {gpus:g} of an accelerator each" if gpus else ""
        raise ConfigError(f"Ray has room for {room} workers{share}, and {max(number, 1)} are asked for")
    return number


class _RayWorkers(Workers):
    """See the module; `session` is the folder of a Ray of our own, which is ended with the workers."""

    def __init__(self, folder: Path, number: int, gpus: float, session: Path | None) -> None:
        super().__init__(folder, number)
        self._session, self._pin, self._homes = session, threading.Lock(), dict[str, _Actor]()
        self._all = [_Actor(index, gpus, folder if session else None) for index in range(number)]
        beside = Counter(actor.node for actor in self._all)
        for actor in self._all:
            actor.begin(beside[actor.node])

    @property
    def at_once(self) -> int:
        """Twice as many as there are: a thread that waits for one actor leaves no other without work."""
        return 2 * self.number

    @contextmanager
    def _turn(self, home: str) -> Iterator[Worker]:
        actor = self._actor_of(home)
        with actor.lock:
            yield actor

    def _actor_of(self, home: str) -> _Actor:
        """The actor that has `home`, for a new one that with the fewest; for no home one that is free."""
        with self._pin:
            if home in self._homes:
                return self._homes[home]
            living = [actor for actor in self._all if not actor.lost]
            if not living:
                raise FederationError("no worker of the simulation is left; see the Ray cluster's own logs")
            have = Counter(actor.index for actor in self._homes.values())
            chosen = min(living, key=lambda actor: (not home and actor.lock.locked(), have[actor.index]))
            if home:
                self._homes[home] = chosen
            return chosen

    def remove(self, folder: str) -> None:
        """See Workers."""
        for actor in self._all:
            actor.remove(folder)
        with self._pin:
            self._homes = {home: actor for home, actor in self._homes.items() if not home.startswith(f"{folder}/")}

    def stop(self) -> None:
        """See Workers."""
        for actor in self._all:
            actor.stop()
        leave_ray(self._session)


class _Actor:
    """One actor and the worker that it holds. `lost` when its machine is gone, and with it the homes that it had."""

    def __init__(self, index: int, gpus: float, folder: Path | None) -> None:
        self.index, self.lock, self.lost = index, threading.Lock(), False
        self._gpus, self._folder, self._beside = gpus, folder, 1
        self._host: Any = self._create(None)
        with as_config_error("a worker did not start on the Ray cluster"):
            self.node, version = self._get("place", seconds=_START_SECONDS)
        if version != __version__:
            raise ConfigError(
                f"a machine of the Ray cluster has Sfumato {version}, this one {__version__}: install one"
            )

    def _create(self, node: str | None) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = "SPREAD" if node is None else NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        actor = ray.remote(Host).options(num_cpus=1, num_gpus=self._gpus, scheduling_strategy=where)
        return actor.remote(self.index)

    def _get(self, method: str, *given: Any, seconds: float | None = None) -> Any:
        import ray

        return ray.get(getattr(self._host, method).remote(*given), timeout=seconds)

    def begin(self, beside: int) -> None:
        """Start its worker; `beside` share the memory of its machine."""
        self._beside = beside
        self._folder = Path(self._get("begin", None if self._folder is None else str(self._folder), beside))

    def tell(self, header: Mapping[str, Any], arrays: Arrays) -> Frame | None:
        """See Worker. Raises FederationError where its machine is gone."""
        import ray

        if self.lost:
            raise FederationError("a machine of the Ray cluster is gone, and with it the homes that it had")
        try:
            data: bytes = self._get("tell", pack_frame(header, arrays))
        except ray.exceptions.RayError:
            return None
        return unpack_frame(data) if data else None

    def restart(self) -> None:
        """See Worker: on its machine, where the homes are. Where that is gone, it is lost."""
        import ray

        try:
            self.begin(self._beside)
        except ray.exceptions.RayError:
            self._host = self._create(self.node)
            try:
                self._get("place", seconds=_START_SECONDS)
                self.begin(self._beside)
            except ray.exceptions.RayError:
                self.lost = True

    def remove(self, folder: str) -> None:
        """Remove homes that it has."""
        import ray

        with suppress(ray.exceptions.RayError):
            self._get("remove", folder)

    def stop(self) -> None:
        """End the worker, and remove what it kept in a folder of its own."""
        import ray

        with suppress(ray.exceptions.RayError):
            self._get("stop", seconds=_START_SECONDS)
        ray.kill(self._host)

"""The options of commands that work through shards: how many workers, and what keeps them."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato_server.workers import Where

ShardWorkers = Annotated[int, typer.Option("--workers", help="Processes that work through shards.")]
On = Annotated[str, typer.Option("--on", help="What keeps them: processes (of this machine), or ray.")]
RayAddress = Annotated[
    str | None, typer.Option(help="A Ray cluster, HOST:PORT or auto, whose machines share these folders.")
]


def shard_workers(workers: int, on: str, ray_address: str | None) -> Where:
    """What the options say; before the work is begun that would come first. Raises ConfigError."""
    where = Where(workers, on, ray_address)
    where.check()
    return where

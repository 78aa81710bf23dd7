"""The shards of a published set checked one after another: here, or by processes of which each takes every n-th."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from sfumato_common.errors import ConfigError, SfumatoError, VerificationError
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import Child
from sfumato_server.publish.manifest import PublishedManifest
from sfumato_server.publish.shard import CheckedShard, check_shard
from sfumato_server.publish.tables import Cover


def check_shards(
    folder: Path,
    manifest: PublishedManifest,
    keys: Mapping[str, bytes],
    plan: Plan,
    cover: Cover | None,
    workers: int,
    pictures: bool = True,
) -> Iterator[CheckedShard]:
    """What `check_shard` finds of each shard, in order; `keys` are the sites' (PEM). Raises VerificationError.

    Without `pictures` there is little to do, and one process does it.
    """
    if workers < 1:
        raise ConfigError("--workers takes a number from 1")
    workers = min(workers, len(manifest.shards))
    if workers == 1 or not pictures:
        for line in manifest.shards:
            yield check_shard(folder, line, keys[line.site], plan, cover, pictures)
        return
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        children = [_start(folder, mine, workers, logs) for mine in range(workers)]
        for child in children:
            stack.callback(child.stop)
        for place in range(len(manifest.shards)):
            yield _answer(children[place % workers])


def _start(folder: Path, mine: int, of: int, logs: Path) -> Child:
    command = [sys.executable, "-P", "-m", "sfumato_server.publish.verify_program", str(folder), str(mine), str(of)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return Child(f"verify {mine}", command, environment, logs / f"{mine}.log", piped=True)


def _answer(child: Child) -> CheckedShard:
    line = child.from_child.readline()
    if not line:
        raise SfumatoError(f"a worker ended: {child.log.read_text(errors='replace').strip()[-200:] or 'it was killed'}")
    found = json.loads(line)
    if "error" in found:
        raise VerificationError(found["error"])
    return CheckedShard.from_json(found)

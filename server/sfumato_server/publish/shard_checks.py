"""The shards of a published set checked, each as a task that any worker can do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from sfumato_common.study.plan import Plan
from sfumato_server.publish.manifest import PublishedManifest, ShardLine
from sfumato_server.publish.shard import CheckedShard, check_shard
from sfumato_server.publish.tables import Cover
from sfumato_server.workers import ALONE, Answer, Task, Where, run_tasks

CHECK = "sfumato_server.publish.shard_checks:check_stored"


def check_shards(
    folder: Path,
    manifest: PublishedManifest,
    keys: Mapping[str, bytes],
    plan: Plan,
    cover: Cover | None,
    where: Where,
    pictures: bool = True,
) -> Iterator[CheckedShard]:
    """What `check_shard` finds of each shard, in order; `keys` are the sites' (PEM). Raises VerificationError.

    Without `pictures` there is little to do, and one process does it.
    """
    text, paid = plan.model_dump_json(), None if cover is None else asdict(cover)
    about = {"folder": str(folder), "plan": text, "cover": paid, "pictures": pictures}
    tasks = (
        {**about, "line": line.model_dump(), "key": keys[line.site].decode("utf-8", "replace")}
        for line in manifest.shards
    )
    for _, answer in run_tasks(CHECK, tasks, where if pictures else ALONE):
        held = Counter({(method, model): images for method, model, images in answer["held"]})
        rows = {name: (size, sha256) for name, (size, sha256) in answer["rows"].items()}
        yield CheckedShard(held, answer["first"], answer["last"], rows)


def check_stored(task: Task) -> Answer:
    """Check one shard. Raises VerificationError as `check_shard`."""
    line, cover = ShardLine(**task["line"]), None if task["cover"] is None else Cover(**task["cover"])
    key, plan = task["key"].encode(), _plan(task["plan"])
    checked = check_shard(Path(task["folder"]), line, key, plan, cover, task["pictures"])
    held = [[*source, images] for source, images in checked.held.items()]
    return {"held": held, "first": checked.first, "last": checked.last, "rows": dict(checked.rows)}


@lru_cache(maxsize=2)
def _plan(text: str) -> Plan:
    return Plan.model_validate(json.loads(text))

"""One stored package verified from its file on disk, as a task that any worker can do."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sfumato_common.errors import VerificationError
from sfumato_common.package.manifest import parse_manifest
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import Part
from sfumato_server.enrol.registry import SiteRecord
from sfumato_server.intake.admission import Contents, admit, contents
from sfumato_server.pool.pool import PoolShard
from sfumato_server.workers import Answer, Task

ADMIT = "sfumato_server.pool.admitting:admit_stored"


@dataclass(frozen=True)
class Admitted:
    """What is known of a package that holds: the shard, its first and last name, its images by method and model."""

    shard: PoolShard
    first: str
    last: str
    held: Contents


def task_of(path: Path, plan_text: str, record: SiteRecord, part: Part, number: int) -> dict[str, Any]:
    """Verify the package in a file as that shard of a part; `plan_text` is the study's plan as JSON."""
    return {"path": str(path), "plan": plan_text, "record": asdict(record), "part": part, "number": number}


def admit_stored(task: Task) -> Answer:
    """What `admitted` reads; that a package does not hold is an answer, since its site alone is left out."""
    record = SiteRecord(**{**task["record"], "earlier": tuple(task["record"]["earlier"])})
    try:
        package = admit(Path(task["path"]), _plan(task["plan"]), record)
        if package.head.part != task["part"]:
            raise VerificationError("a stored package holds another part of the release than it is filed under")
        if package.head.shard != task["number"]:
            raise VerificationError("a stored package is another shard than it is filed under")
    except VerificationError as error:
        return {"refused": str(error)}
    return {
        "manifest": package.manifest.decode("ascii"),
        "signature": package.signature.hex(),
        "first": package.entries[0].name,
        "last": package.entries[-1].name,
        "held": [[*source, images] for source, images in contents(package).items()],
    }


def admitted(task: Task, answer: Answer) -> Admitted:
    """The package of a task. Raises VerificationError where it does not hold."""
    if "refused" in answer:
        raise VerificationError(answer["refused"])
    head = parse_manifest(answer["manifest"].encode("ascii"))
    signature, key = bytes.fromhex(answer["signature"]), task["record"]["signing_key"].encode()
    held = Counter({(method, model): images for method, model, images in answer["held"]})
    return Admitted(PoolShard(head, signature, key, Path(task["path"])), answer["first"], answer["last"], held)


@lru_cache(maxsize=2)
def _plan(text: str) -> Plan:
    return Plan.model_validate(json.loads(text))

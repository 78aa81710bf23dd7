"""The end of a study: its pool, the published set, the signed list of versions, and the figures of the run."""

from __future__ import annotations

import json
import platform
import secrets
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sfumato_common.crypto.pseudonyms import tells
from sfumato_common.errors import ConfigError, FederationError
from sfumato_common.exchanges.features import FEATURES
from sfumato_common.files import write_atomic, write_json
from sfumato_common.package.features import Features
from sfumato_common.study.lineage import package_sites, plan_of_site
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shard_sizes
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Registry, SiteRecord, load_authority
from sfumato_server.pool import Pool, pool_packages
from sfumato_server.publish import publish
from sfumato_server.publish.features import draw_features, has_features
from sfumato_server.publish.progress import FILE as PROGRESS
from sfumato_server.publish.progress import LoggedProgress
from sfumato_server.publish.versions import note_version
from sfumato_server.rounds.checkpoint import released_model
from sfumato_server.status.board import read_board
from sfumato_server.status.sheets import training_pictures
from sfumato_server.workers import ALONE, Where

_PACKAGES = ("flwr", "torch", "opacus", "dp-accounting", "numpy", "cryptography", "grpcio", "pydicom")


def publish_study(home: CoordinatorHome, out: Path, started: float, where: Where = ALONE) -> Path:
    """Publish what the home's study left, which began at `started` (seconds since the epoch); the published folder.

    `where` says by whom shards are checked and written. Raises FederationError where the study did not complete.
    """
    result: dict[str, Any] = json.loads(home.result_file.read_text())
    if result["outcome"] != "completed":
        raise FederationError(result["reason"])
    plan = home.plan()
    require_unnamed(plan, Registry(home.root).sites().values())
    before = time.time()
    plans = {site: plan_of_site(plan, site) for site in package_sites(plan)}
    images = sum(sum(shard_sizes(own, site, part)) for site, own in plans.items() for part in own.parts_at(site))
    (home.root / PROGRESS).unlink(missing_ok=True)
    words = ("checking packages", "looking for near-duplicates")
    checked, compared = (LoggedProgress(what, images, home.root) for what in words)
    pool = pool_packages(home.root, plan, Registry(home.root), checked, compared, where)
    pictures = training_pictures(home.root, plan.study_digest)
    run_info = {
        "study": plan.study,
        "plan_hash": plan.study_digest,
        "exchanges": result["exchanges"],
        "choice": result["choice"],
        "training": pictures,
        "package_bytes": _package_bytes(pool),
        "seconds": round(time.time() - started, 1),
        "versions": {name: version(name) for name in _PACKAGES if _is_installed(name)}
        | {"python": platform.python_version()},
    }
    vectors = _vectors(home, plan) if has_features(plan) else None
    authority = load_authority(home.root)
    written = LoggedProgress("writing the set", sum(shard.head.images for shard in pool.shards), home.root)
    published = publish(pool, plan, out, authority, run_info, result["utility"], vectors, written, where)
    note_version(home.versions_file, authority, plan, published.manifest_sha256)
    write_atomic(out / home.versions_file.name, home.versions_file.read_bytes())
    # the report shows the pictures; this file is for figures
    run_info["training"] = [{key: value for key, value in item.items() if key != "uri"} for item in pictures]
    run_info["left_out"] = dict(published.left_out)
    run_info["publish_seconds"] = round(time.time() - before, 2)
    run_info["plan"] = plan.model_dump(mode="json")
    write_json(out / "run.json", {**run_info, "utility": result["utility"], "status": read_board(home.status_file)})
    return published.folder


def require_unnamed(plan: Plan, records: Iterable[SiteRecord]) -> None:
    """Raise ConfigError where the plan, which is published, names a hospital that takes part under a pseudonym."""
    text = json.dumps(plan.model_dump(mode="json"))
    if told := [record for record in records if record.holder and tells(text, record.holder)]:
        raise ConfigError(
            f"the plan names '{told[0].holder}', which takes part as '{told[0].site}' because its policy hides its "
            "name: nothing is published; publish under a plan that does not name it"
        )


def _vectors(home: CoordinatorHome, plan: Plan) -> Features:
    """Vectors of the study's final features model."""
    kind = FEATURES.kind
    _, model = released_model(home.checkpoints / plan.study_digest / f"{kind}-model.safetensors")
    return draw_features(plan, model, secrets.randbits(63))


def _package_bytes(pool: Pool) -> dict[str, int]:
    """Bytes of all packages by site."""
    sizes = dict.fromkeys(pool.sites, 0)
    for shard in pool.shards:
        sizes[shard.head.site] += shard.path.stat().st_size
    return sizes


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True

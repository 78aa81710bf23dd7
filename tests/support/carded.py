"""A published set of a founded consortium, with as many images of noise a site as a test asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish

UTILITY = {
    "what": "tested on holdout real patients",
    "pooled": {"auc": 0.91, "low": 0.87, "high": 0.94},
    "sites": {"east": {"auc": 0.89, "low": 0.8, "high": 0.95}, "north": {"auc": None, "low": None, "high": None}},
    "withheld": ["south"],
    "noise": "Gaussian, noise multiplier 5, on 10 bins",
    "epsilon_holdout": 0.71,
    "delta": 1e-4,
}


def published_set(founded: Any, folder: Path, images: int = 60, **changes: Any) -> Path:
    """The set below `folder`, of `founded`'s plan with `changes`."""
    consortium = founded.copied(folder / "coordinator")
    release = [{"model": "spectral", "images": images}]
    plan = parse({**founded.plan.model_dump(mode="json"), "release": release, **changes}, Plan, "plan")
    (consortium.home / "intake").mkdir(exist_ok=True)
    for site in plan.sites:
        own = consortium.images(sum(site.encode()), images)
        data = consortium.package(site, images=own, plan_hash=plan.digest_at(site))
        (consortium.home / "intake" / f"{site}.formal.sfumato").write_bytes(data)
    pool = pool_packages(consortium.home, plan, consortium.registry)
    return publish(pool, plan, folder, consortium.authority, {"versions": {"python": "3"}}, UTILITY).folder

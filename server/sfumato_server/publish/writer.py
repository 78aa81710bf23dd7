"""Writes a pool as a published data set: images, labels.csv, each site's signed manifest, the coordinator's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfumato_common.crypto.signatures import sign
from sfumato_common.errors import ConfigError
from sfumato_common.files import sync_folder
from sfumato_common.package.features import FILE, Features
from sfumato_common.study.plan import Plan
from sfumato_server.enrol.authority import Authority
from sfumato_server.pool import Pool
from sfumato_server.publish.cards import cards, gather
from sfumato_server.publish.features import has_features
from sfumato_server.publish.manifest import (
    COORDINATOR_KEY,
    FORMAT,
    MANIFEST,
    REPORT,
    SIGNATURE,
    ImageEntry,
    PublishedManifest,
    file_entries,
    image_file,
    provenance_files,
)
from sfumato_server.publish.report import render_report
from sfumato_server.publish.tables import cover_of, tables

FOLDER = "published"


@dataclass(frozen=True)
class PublishedSet:
    """What was published, where: the data folder, the report in it, the number of images, the manifest's sha256.

    `left_out` says by site why nothing, or not all, of it was published.
    """

    folder: Path
    report: Path
    images: int
    manifest_sha256: str
    left_out: Mapping[str, str]


def publish(
    pool: Pool,
    plan: Plan,
    out: Path,
    authority: Authority,
    run_info: Mapping[str, Any],
    utility: Mapping[str, Any] | None,
    features: Features | None = None,
) -> PublishedSet:
    """Write `out/published/`, its report among the signed files; an earlier published set there is replaced as a whole.

    `run_info` may hold `exchanges` (a list of stage, seconds, bytes_down, bytes_up), `seconds` and `versions`;
    `utility` is the TSTR figure or None; `features` are the vectors of a plan that publishes some. Raises ConfigError
    when `out/published` is something else than such a set.
    """
    assert has_features(plan) == (features is not None), "vectors are published where, and only where, the plan says so"
    out.mkdir(parents=True, exist_ok=True)
    target = out / FOLDER
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"'{FOLDER}' in the output folder is not a published data set; choose another folder")
    files = _contents(pool, authority) | ({FILE: features.encode()} if features is not None else {})
    # cards and report are made from what the manifest says of all else; then they are signed like all else
    manifest = _manifest(pool, plan, files)
    run = {**run_info, "utility": utility}
    facts = gather(manifest, plan, manifest.images, pool.certificates, authority.public_key, run)
    files |= cards(facts, authority.signing_key)
    files[REPORT] = render_report(pool, plan, manifest, facts, run_info, utility).encode("utf-8")
    signed = manifest.model_copy(update={"files": file_entries(files)}).encode()
    files[MANIFEST] = signed
    files[SIGNATURE] = sign(authority.signing_key, "published", signed)
    digest = hashlib.sha256(signed).hexdigest()
    _replace(out, target, files)
    return PublishedSet(target, target / REPORT, len(pool.items), digest, dict(pool.left_out))


def _contents(pool: Pool, authority: Authority) -> dict[str, bytes]:
    files = {image_file(item.site, item.facts.name): item.png for item in pool.items}
    files |= tables(_images(pool), cover_of(pool.certificates.values()))
    files[COORDINATOR_KEY] = authority.public_key
    for (site, part), provenance in pool.provenance.items():
        names = provenance_files(site, part)
        files.update(zip(names, (provenance.manifest, provenance.signature, provenance.public_key), strict=True))
    return files


def _images(pool: Pool) -> list[ImageEntry]:
    return [
        ImageEntry(site=item.site, pixel_sha256=item.pixel_sha256, **item.facts.model_dump()) for item in pool.items
    ]


def _manifest(pool: Pool, plan: Plan, files: Mapping[str, bytes]) -> PublishedManifest:
    return PublishedManifest.model_validate(
        {
            "format": FORMAT,
            "study": plan.study,
            "created": datetime.now(UTC).date().isoformat(),
            "plan_hash": plan.study_digest,
            "plan": plan.model_dump(mode="json"),
            "packages": {site: [part for own, part in pool.provenance if own == site] for site in pool.sites},
            "left_out": dict(pool.left_out),
            "images": _images(pool),
            "duplicates": [asdict(duplicate) for duplicate in pool.duplicates],
            "files": file_entries(files),
        }
    )


def _replace(out: Path, target: Path, files: Mapping[str, bytes]) -> None:
    """Write everything beside `target`, then rename: a reader sees the old set or the whole new one."""
    fresh = Path(tempfile.mkdtemp(dir=out, prefix=f".{FOLDER}-new-"))
    old = fresh.with_name(fresh.name.replace("-new-", "-old-"))
    try:
        for name, content in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        fresh.chmod(0o755)
        # the bytes are on the disk before the name points at them; one call is cheaper than thousands of fsyncs
        os.sync()
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        sync_folder(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)

"""Writes a pool as a published data set, one shard at a time: images, labels.csv, what sites and coordinator signed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfumato_common.crypto.signatures import sign
from sfumato_common.errors import ConfigError
from sfumato_common.files import file_sha256, room_errors, sync_folder
from sfumato_common.package.features import FILE, Features
from sfumato_common.study.plan import Plan
from sfumato_server.enrol.authority import Authority
from sfumato_server.pool import Pool
from sfumato_server.publish.cards import cards, gather
from sfumato_server.publish.features import has_features
from sfumato_server.publish.layout import key_file
from sfumato_server.publish.manifest import (
    COORDINATOR_KEY,
    FORMAT,
    MANIFEST,
    REPORT,
    ROOT,
    ROOT_SIGNATURE,
    SIGNATURE,
    FileEntry,
    PublishedManifest,
    ShardLine,
    file_entry,
)
from sfumato_server.publish.report import render_report
from sfumato_server.publish.shard_writing import WRITE, task_of, write_file, written
from sfumato_server.publish.tables import cover_of, table_headers
from sfumato_server.publish.tally import Tallies
from sfumato_server.workers import ALONE, Task, Where, run_tasks

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
    progress: Callable[[int], None] = lambda images: None,
    where: Where = ALONE,
) -> PublishedSet:
    """Write `out/published/`, its report among the signed files; an earlier published set there is replaced as a whole.

    `run_info` may hold `exchanges` (a list of stage, seconds, bytes_down, bytes_up), `seconds` and `versions`;
    `utility` is the TSTR figure or None; `features` are the vectors of a plan that publishes some. `progress` is told
    how many images have been written since it was told last; `where` says by how many workers. Raises ConfigError when
    `out/published` is something else than such a set, VerificationError when a package was replaced meanwhile.
    """
    assert has_features(plan) == (features is not None), "vectors are published where, and only where, the plan says so"
    out.mkdir(parents=True, exist_ok=True)
    target = out / FOLDER
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"'{FOLDER}' in the output folder is not a published data set; choose another folder")
    with _replaced(out, target) as fresh:
        lines, tallies = _write_shards(fresh, pool, progress, where)
        small = {COORDINATOR_KEY: authority.public_key} | ({FILE: features.encode()} if features is not None else {})
        small |= {key_file(site): key for site, key in pool.site_keys.items()}
        files = {name: _entry_of(fresh / name) for name in table_headers()}
        # cards and report are made from what the manifest says of all else; then they are signed like all else
        manifest = _manifest(pool, plan, lines, files | {name: file_entry(data) for name, data in small.items()})
        run = {**run_info, "utility": utility}
        facts = gather(manifest, plan, tallies, pool.certificates, authority.public_key, run)
        small |= cards(facts, authority.signing_key)
        small[REPORT] = render_report(pool, plan, manifest, facts, run_info, utility).encode("utf-8")
        files |= {name: file_entry(data) for name, data in small.items()}
        manifest = manifest.model_copy(update={"files": files})
        digest = _sign(small, manifest, authority)
        for name, data in small.items():
            write_file(fresh, name, data)
    return PublishedSet(target, target / REPORT, manifest.images, digest, dict(pool.left_out))


def _write_shards(
    fresh: Path, pool: Pool, progress: Callable[[int], None], where: Where
) -> tuple[list[ShardLine], Tallies]:
    """All shards and the tables of their images."""
    lines, tallies, cover = list[ShardLine](), Tallies(), cover_of(pool.certificates.values())
    with contextlib.ExitStack() as stack:
        tables = {name: stack.enter_context((fresh / name).open("wb")) for name in table_headers()}
        for name, header in table_headers().items():
            tables[name].write(header)
        beside = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=fresh, prefix=".said-")))

        def tasks() -> Iterator[Task]:
            for place, shard in enumerate(pool.shards):
                left = pool.left_of(place, shard.entries() if pool.balance else ())
                yield task_of(fresh, shard, left, cover, beside / str(place))

        for task, answer in run_tasks(WRITE, tasks(), where):
            one = written(task, answer)
            for name, data in one.rows.items():
                tables[name].write(data)
            tallies.add(one.tally)
            lines.append(one.line)
            progress(one.line.signed)
    return lines, tallies


def _entry_of(path: Path) -> FileEntry:
    return FileEntry(bytes=path.stat().st_size, sha256=file_sha256(path))


def _manifest(pool: Pool, plan: Plan, lines: list[ShardLine], files: Mapping[str, FileEntry]) -> PublishedManifest:
    parts = {site: list(dict.fromkeys(line.part for line in lines if line.site == site)) for site in pool.sites}
    return PublishedManifest.model_validate(
        {
            "format": FORMAT,
            "study": plan.study,
            "created": datetime.now(UTC).date().isoformat(),
            "plan_hash": plan.study_digest,
            "plan": plan.model_dump(mode="json"),
            "packages": parts,
            "left_out": dict(pool.left_out),
            "shards": lines,
            "files": dict(files),
        }
    )


def _sign(files: dict[str, bytes], manifest: PublishedManifest, authority: Authority) -> str:
    """Add the coordinator's two statements and its signatures to `files`; the sha256 of the manifest."""
    signed, root = manifest.encode(), manifest.root.encode()
    files[MANIFEST], files[SIGNATURE] = signed, sign(authority.signing_key, "published", signed)
    files[ROOT], files[ROOT_SIGNATURE] = root, sign(authority.signing_key, "root", root)
    return hashlib.sha256(signed).hexdigest()


@contextlib.contextmanager
def _replaced(out: Path, target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its name when the block is done: readers see the old set or the new."""
    fresh = Path(tempfile.mkdtemp(dir=out, prefix=f".{FOLDER}-new-"))
    old = fresh.with_name(fresh.name.replace("-new-", "-old-"))
    try:
        with room_errors():
            yield fresh
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

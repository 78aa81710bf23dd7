"""One shard of a published set written from its package: its images, and what is said of them, as a worker's task."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfumato_common.files import room_errors
from sfumato_common.package import Package
from sfumato_common.package.manifest import parse_manifest, write_entries
from sfumato_common.package.package import reopen_package
from sfumato_server.pool import Duplicate, Left, PoolShard
from sfumato_server.publish.layout import ShardFiles
from sfumato_server.publish.manifest import DuplicateEntry, ShardIndex, ShardLine
from sfumato_server.publish.shard import placed
from sfumato_server.publish.tables import Cover, table_headers, table_rows
from sfumato_server.publish.tally import Group, Tally, tally_of
from sfumato_server.workers import Answer, Task

WRITE = "sfumato_server.publish.shard_writing:write_stored"


@dataclass(frozen=True)
class WrittenShard:
    """What a shard that is written adds to the whole: its line, its rows in each table, its tally."""

    line: ShardLine
    rows: Mapping[str, bytes]
    tally: Tally


def task_of(
    folder: Path,
    shard: PoolShard,
    left: Left,
    cover: Cover | None,
    said: Path,
) -> dict[str, Any]:
    """Write a shard's images but those that are `left` out below `folder`; what is said of them goes to `said`.

    That is a file, since it is as large as the tables: whoever reads the answer removes it.
    """
    return {
        "folder": str(folder),
        "package": str(shard.path),
        "head": shard.head.encode().decode("ascii"),
        "left": [*map(_rows, (left.twice, left.near)), list(left.undrawn), list(left.withdrawn)],
        "cover": None if cover is None else asdict(cover),
        "said": str(said),
    }


def write_stored(task: Task) -> Answer:
    """Write one shard; `written` reads the answer. Raises VerificationError where its package is another by now."""
    head = parse_manifest(task["head"].encode("ascii"))
    package = reopen_package(Path(task["package"]), head)
    *equal, undrawn, withdrawn = task["left"]
    twice, near = ([Duplicate(head.site, *row) for row in rows] for rows in equal)
    out = Left({item.name: item for item in twice}, undrawn, {item.name: item for item in near}, withdrawn)
    cover = None if task["cover"] is None else Cover(**task["cover"])
    with room_errors():
        line = _write_files(Path(task["folder"]), package, out)
        images = placed(ShardFiles(line.site, line.part, line.shard), package.entries, out.names)
        tally = tally_of(line.site, images, cover)
        rows = table_rows(line.site, images, cover)
        pieces = [tally.pixels, *(rows[name] for name in table_headers())]
        Path(task["said"]).write_bytes(b"".join(pieces))
    return {
        "line": line.model_dump(),
        "pieces": [len(piece) for piece in pieces],
        "groups": [[*group, images] for group, images in tally.groups.items()],
        "examples": dict(tally.examples),
    }


def written(task: Task, answer: Answer) -> WrittenShard:
    """What was written; the file with what is said of it is read and removed."""
    path = Path(task["said"])
    with path.open("rb") as stream:
        pixels, *rows = (stream.read(size) for size in answer["pieces"])
    path.unlink()
    groups = Counter({Group(*group): images for *group, images in answer["groups"]})
    tally = Tally(groups, answer["examples"], pixels)
    return WrittenShard(ShardLine(**answer["line"]), dict(zip(table_headers(), rows, strict=True)), tally)


def write_file(folder: Path, name: str, data: bytes) -> None:
    """A new file in a folder that is being written; whoever writes it all flushes it to the disk at the end."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _rows(found: Mapping[str, Duplicate]) -> list[list[str]]:
    return [[item.name, item.kept_site, item.kept_name] for item in found.values()]


def _write_files(folder: Path, package: Package, out: Left) -> ShardLine:
    """A shard's images but those that are left `out`, and its statements; its line."""
    head, left = package.head, out.names
    files = ShardFiles(head.site, head.part, head.shard)
    found = dict(files.published([entry.name for entry in package.entries], left))
    for name in {file.rpartition("/")[0] for file in found.values()}:
        (folder / name).mkdir(parents=True)
    for place, (entry, png) in enumerate(package.pngs()):
        if place in found:
            write_new(f"{folder}/{found[place]}", png)
        elif entry.name in out.near:
            write_file(folder, files.near(place, entry.name), png)
    index = ShardIndex(
        format="sfumato-index/1",
        site=head.site,
        part=head.part,
        shard=head.shard,
        duplicates=_entries(out.twice),
        undrawn=list(out.undrawn),
        near=_entries(out.near),
        withdrawn=list(out.withdrawn),
    ).encode()
    contents = (package.manifest, package.signature, write_entries(package.entries), index)
    for name, data in zip(files.all, contents, strict=True):
        write_file(folder, name, data)
    return ShardLine(
        site=head.site,
        part=head.part,
        shard=head.shard,
        shards=head.shards,
        images=head.images - len(left),
        duplicates=len(out.twice),
        undrawn=len(out.undrawn),
        near=len(out.near),
        withdrawn=len(out.withdrawn),
        head=hashlib.sha256(package.manifest).hexdigest(),
        root=head.root,
        index=hashlib.sha256(index).hexdigest(),
    )


def _entries(found: Mapping[str, Duplicate]) -> list[DuplicateEntry]:
    return [
        DuplicateEntry(name=item.name, kept_site=item.kept_site, kept_name=item.kept_name) for item in found.values()
    ]


def write_new(path: str, data: bytes) -> None:
    """A file that is not there yet, of which there are up to a million."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
    finally:
        os.close(descriptor)

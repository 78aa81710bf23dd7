"""One shard of a published set, written and checked by itself; nothing of another shard is read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato_common.crypto.signatures import verify
from sfumato_common.errors import VerificationError
from sfumato_common.package import Package, check_image
from sfumato_common.package.manifest import Manifest, ManifestImage, parse_entries, parse_manifest, write_entries
from sfumato_common.study.lineage import plan_of_site
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shard_sizes
from sfumato_server.pool import Duplicate, Left
from sfumato_server.publish.layout import FOLDER_SIZE, NEAR, ShardFiles
from sfumato_server.publish.manifest import (
    DuplicateEntry,
    ImageEntry,
    PublishedManifest,
    ShardIndex,
    ShardLine,
    parse_canonical,
)
from sfumato_server.publish.tables import Cover, cover_of, table_rows


@dataclass(frozen=True)
class CheckedShard:
    """What a sound shard adds to the whole: its images by method and model, its first and last name, its rows.

    `rows` are the bytes and sha256 of its rows in each table.
    """

    held: Counter[tuple[str, str]]
    first: str
    last: str
    rows: Mapping[str, tuple[int, str]]

    def to_json(self) -> dict[str, Any]:
        """As a worker tells it."""
        held = [[*source, images] for source, images in self.held.items()]
        return {"held": held, "first": self.first, "last": self.last, "rows": self.rows}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CheckedShard:
        """Inverse of `to_json`."""
        held = Counter({(method, model): images for method, model, images in value["held"]})
        return cls(held, value["first"], value["last"], {name: tuple(row) for name, row in value["rows"].items()})


def write_file(folder: Path, name: str, data: bytes) -> None:
    """A new file in a folder that is being written; whoever writes it all flushes it to the disk at the end."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_shard(folder: Path, package: Package, out: Left, cover: Cover | None) -> tuple[ShardLine, dict[str, bytes]]:
    """Write a shard's images but those that are left `out`, and what is said of it: its line, rows by table."""
    head, left = package.head, out.names
    files = ShardFiles(head.site, head.part, head.shard)
    for place, (entry, png) in enumerate(package.pngs()):
        if place % FOLDER_SIZE == 0:
            (folder / files.folder(place)).mkdir(parents=True)
        if entry.name not in left:
            _write_new(f"{folder}/{files.image(place, entry.name)}", png)
        elif entry.name in out.near:
            write_file(folder, files.near(place, entry.name), png)
    for name in files.folders(head.images):
        if not any((folder / name).iterdir()):
            (folder / name).rmdir()
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
    line = ShardLine(
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
    return line, table_rows(published_entries(files, package.entries, left), cover)


def _entries(found: Mapping[str, Duplicate]) -> list[DuplicateEntry]:
    return [
        DuplicateEntry(name=item.name, kept_site=item.kept_site, kept_name=item.kept_name) for item in found.values()
    ]


def _write_new(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
    finally:
        os.close(descriptor)


def published_entries(
    files: ShardFiles, entries: Sequence[ManifestImage], left: Container[str]
) -> Iterator[ImageEntry]:
    """The entries of a shard's published images, with where they lie."""
    for place, entry in enumerate(entries):
        if entry.name not in left:
            # checked already: building 1,000,000 of them anew is most of what a listing costs
            yield ImageEntry.model_construct(**entry.__dict__, site=files.site, file=files.image(place, entry.name))


def cover_in(folder: Path, manifest: PublishedManifest) -> Cover | None:
    """What covers formal images of the set by the heads in it, which are held against their signatures elsewhere."""
    heads = (_stated(folder, ShardFiles(line.site, line.part, line.shard).head, line.head) for line in manifest.shards)
    return cover_of(parse_manifest(head).certificate for head in heads)


def read_shard(folder: Path, line: ShardLine) -> tuple[Manifest, list[ManifestImage], ShardIndex]:
    """Head, entries and index of one shard, as the coordinator's manifest and the site's root have them.

    Whose signature the head has is not looked at. Raises VerificationError naming the file that is another.
    """
    files = ShardFiles(line.site, line.part, line.shard)
    signed, index = (_stated(folder, name, sha) for name, sha in ((files.head, line.head), (files.index, line.index)))
    head, said = parse_manifest(signed), parse_canonical(index, ShardIndex, files.index)
    if (head.site, head.part, head.shard, head.shards, head.root) != (
        line.site,
        line.part,
        line.shard,
        line.shards,
        line.root,
    ):
        raise VerificationError(f"{files.head} is of another site, part or shard")
    try:
        entries = parse_entries(read_file(folder, files.entries), head)
    except VerificationError:
        raise VerificationError(f"{files.entries} is not what site '{line.site}' signed") from None
    return head, entries, _checked_index(said, line, entries, files.index)


def _checked_index(said: ShardIndex, line: ShardLine, entries: list[ManifestImage], name: str) -> ShardIndex:
    lists = [[item.name for item in said.duplicates], said.undrawn, [item.name for item in said.near], said.withdrawn]
    of_this = (said.site, said.part, said.shard) == (line.site, line.part, line.shard)
    in_order = all(own == sorted(set(own)) for own in lists) and sum(map(len, lists)) == len(said.left)
    if not of_this or not in_order or not {entry.name for entry in entries} >= said.left:
        raise VerificationError(f"{name} does not fit the entries of its shard")
    counted = (*map(len, lists), len(entries) - len(said.left))
    if (line.duplicates, line.undrawn, line.near, line.withdrawn, line.images) != counted:
        raise VerificationError(f"{name} leaves out other images than the manifest counts")
    return said


def check_shard(
    folder: Path, line: ShardLine, key: bytes, plan: Plan, cover: Cover | None, pictures: bool = True
) -> CheckedShard:
    """Check everything of one shard: signature by the site's `key` (PEM), entries, index, and, of `pictures`, each.

    `cover` is what tables say of formal images. Raises VerificationError naming the file at the first thing that does
    not hold.
    """
    files = ShardFiles(line.site, line.part, line.shard)
    head, entries, index = read_shard(folder, line)
    try:
        verify(key, "package", head.encode(), read_file(folder, files.signature))
    except VerificationError:
        raise VerificationError(f"{files.signature}: the signature of site '{line.site}' does not hold") from None
    _check_asked(head, entries, plan_of_site(plan, line.site), files.head)
    if pictures:
        near = {item.name for item in index.near}
        _check_pictures(folder, files, head, entries, index.left, near)
    tables = table_rows(published_entries(files, entries, index.left), cover)
    rows = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in tables.items()}
    held = Counter((entry.method, entry.model) for entry in entries)
    return CheckedShard(held, entries[0].name, entries[-1].name, rows)


def _check_pictures(
    folder: Path, files: ShardFiles, head: Manifest, entries: list[ManifestImage], left: set[str], near: set[str]
) -> None:
    """The shard's folders hold its images but those in `left`, and, apart, those `near`, each as its site signed it."""
    for start in range(0, len(entries), FOLDER_SIZE):
        block = entries[start : start + FOLDER_SIZE]
        _check_folder(folder, files.folder(start), {f"{entry.name}.png" for entry in block if entry.name not in left})
        apart = {f"{entry.name}.png" for entry in block if entry.name in near}
        _check_folder(folder, files.folder(start, NEAR), apart)
    for place, entry in enumerate(entries):
        if entry.name in left and entry.name not in near:
            continue
        name = (files.near if entry.name in near else files.image)(place, entry.name)
        try:
            check_image(entry, read_file(folder, name), head.shape, head.bits)
        except VerificationError:
            raise VerificationError(f"{name} is not the picture that site '{head.site}' signed") from None


def _check_asked(head: Manifest, entries: list[ManifestImage], plan: Plan, name: str) -> None:
    """The shard is one of those into which the plan cuts that part, and claims no more than the plan's methods have."""
    if (head.study, head.plan_hash) != (plan.study, plan.digest_at(head.site)):
        raise VerificationError(f"{name} was signed for another study or plan")
    if head.site not in plan.sites:
        raise VerificationError(f"{name}: the plan knows no such site")
    sizes = shard_sizes(plan, head.site, head.part)
    if head.shards != len(sizes) or head.images != sizes[head.shard - 1]:
        raise VerificationError(f"{name} is no shard into which the plan cuts the release of site '{head.site}'")
    levels = plan.guarantee_levels
    if any(entry.guarantee != levels.get((entry.method, entry.model)) for entry in entries):
        raise VerificationError(f"{name} claims another guarantee of an image than its method has")


def _check_folder(folder: Path, name: str, wanted: set[str]) -> None:
    """One folder of images holds those files, as plain files, and no other; without any it is not there."""
    found = set()
    try:
        with os.scandir(folder / name) as listing:
            for item in listing:
                if not stat.S_ISREG(item.stat(follow_symlinks=False).st_mode):
                    raise VerificationError(f"{name}/{item.name} is not a plain file")
                found.add(item.name)
    except FileNotFoundError:
        pass
    else:
        if not wanted:
            raise VerificationError(f"{name} does not belong to the data set")
    if extra := sorted(found - wanted):
        raise VerificationError(f"{name}/{extra[0]} does not belong to the data set")
    if missing := sorted(wanted - found):
        raise VerificationError(f"{name}/{missing[0]} is missing")


def read_file(folder: Path, name: str) -> bytes:
    """The bytes of a file of the set. Raises VerificationError when it cannot be read."""
    try:
        with open(f"{folder}/{name}", "rb", buffering=0) as stream:  # noqa: PTH123 - a million of them
            return stream.read()
    except OSError:
        raise VerificationError(f"{name} is missing or cannot be read") from None


def _stated(folder: Path, name: str, sha256: str) -> bytes:
    data = read_file(folder, name)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise VerificationError(f"{name} was altered")
    return data

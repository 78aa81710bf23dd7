"""One shard of a published set, read and checked by itself; nothing of another shard is read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.crypto.signatures import load_public_key, verify
from sfumato_common.errors import VerificationError
from sfumato_common.package import at_once, check_image, check_images
from sfumato_common.package.manifest import Manifest, ManifestImage, parse_entries, parse_manifest
from sfumato_common.study.lineage import plan_of_site
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shard_sizes
from sfumato_server.publish.layout import IMAGES, NEAR, ShardFiles
from sfumato_server.publish.manifest import (
    COORDINATOR_KEY,
    ImageEntry,
    PublishedManifest,
    ShardIndex,
    ShardLine,
    parse_canonical,
)
from sfumato_server.publish.strays import is_stray
from sfumato_server.publish.tables import Cover, Placed, cover_of, split_of, table_rows


@dataclass(frozen=True)
class CheckedShard:
    """What a sound shard adds to the whole: its images by method and model, its first and last name, its rows.

    `rows` are the bytes and sha256 of its rows in each table.
    """

    held: Counter[tuple[str, str]]
    first: str
    last: str
    rows: Mapping[str, tuple[int, str]]


def published_entries(
    files: ShardFiles, entries: Sequence[ManifestImage], left: Container[str]
) -> Iterator[ImageEntry]:
    """The entries of a shard's published images, with where they lie."""
    for place, file in files.published([entry.name for entry in entries], left):
        # checked already: building 1,000,000 of them anew is most of what a listing costs
        yield ImageEntry.model_construct(**entries[place].__dict__, site=files.site, file=file)


def placed(files: ShardFiles, entries: Sequence[ManifestImage], left: Container[str]) -> list[Placed]:
    """A shard's published images for its rows and its tally: entries as the package has them."""
    found = files.published([entry.name for entry in entries], left)
    return [Placed(file, entries[place], split_of(entries[place])) for place, file in found]


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
    images = placed(files, entries, index.left)
    if pictures:
        near = {item.name for item in index.near}
        apart = [
            Placed(files.near(at, own.name), own, split_of(own)) for at, own in enumerate(entries) if own.name in near
        ]
        _check_pictures(folder, files, head, [*images, *apart])
    tables = table_rows(files.site, images, cover)
    rows = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in tables.items()}
    held = Counter([(entry.method, entry.model) for entry in entries])
    return CheckedShard(held, entries[0].name, entries[-1].name, rows)


def _check_pictures(folder: Path, files: ShardFiles, head: Manifest, images: list[Placed]) -> None:
    """The shard's folders hold `images`, published and, apart, nearly equal ones, each as signed, and nothing else."""
    wanted: dict[str, set[str]] = {name: set() for room in (IMAGES, NEAR) for name in files.folders(head.images, room)}
    for image in images:
        name, _, file = image.file.rpartition("/")
        wanted[name].add(file)
    for name, own in wanted.items():
        _check_folder(folder, name, own)
    for some in at_once(images, head.shape, head.bits):
        pngs = [read_picture(folder, image.file) for image in some]
        try:
            check_images([image.entry for image in some], pngs, head.shape, head.bits)
        except VerificationError:
            _name_the_first(head, some, pngs)
            raise


def _name_the_first(head: Manifest, images: Sequence[Placed], pngs: Sequence[bytes]) -> None:
    """Raise VerificationError naming the first picture that does not hold."""
    for image, png in zip(images, pngs, strict=True):
        try:
            check_image(image.entry, png, head.shape, head.bits)
        except VerificationError:
            raise VerificationError(f"{image.file} is not the picture that site '{head.site}' signed") from None


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
    """One folder of images holds those files, as plain files, and no other but strays; without any it is not there."""
    found = set()
    try:
        with os.scandir(folder / name) as listing:
            for item in listing:
                if not item.is_file(follow_symlinks=False):
                    raise VerificationError(f"{name}/{item.name} is not a plain file")
                if not is_stray(f"{name}/{item.name}"):
                    found.add(item.name)
    except FileNotFoundError:
        pass
    else:
        if not wanted:
            raise VerificationError(f"{name} does not belong to the data set")
    if extra := sorted(found - wanted):
        raise VerificationError(f"{name}/{extra[0]} does not belong to the data set")
    if missing := sorted(wanted - found):
        raise gone([f"{name}/{one}" for one in missing])


def gone(missing: Sequence[str]) -> VerificationError:
    """What is said of files that are not there: the first by name, and how many more."""
    others = f", and {len(missing) - 1:,} more beside it" if len(missing) > 1 else ""
    return VerificationError(f"{missing[0]} is missing{others}")


def read_file(folder: Path, name: str) -> bytes:
    """The bytes of a file of the set. Raises VerificationError when it cannot be read."""
    try:
        with open(f"{folder}/{name}", "rb", buffering=0) as stream:  # noqa: PTH123 - a million of them
            return stream.read()
    except OSError:
        raise VerificationError(f"{name} is missing or cannot be read") from None


def key_in(folder: Path) -> bytes:
    """The coordinator's public key (PEM) that lies in the set. Raises VerificationError where that is none."""
    key = read_file(folder, COORDINATOR_KEY)
    try:
        load_public_key(key)
    except VerificationError:
        raise VerificationError(f"{COORDINATOR_KEY} in the set is no public key: it was altered") from None
    return key


def read_picture(folder: Path, name: str) -> bytes:
    """The bytes of one image, of which there are up to a million. Raises VerificationError when it cannot be read."""
    try:
        descriptor = os.open(f"{folder}/{name}", os.O_RDONLY)
        try:
            # one byte more than there are: the end is seen, and a short read is no picture that anybody signed
            return os.read(descriptor, os.fstat(descriptor).st_size + 1)
        finally:
            os.close(descriptor)
    except OSError:
        raise VerificationError(f"{name} is missing or cannot be read") from None


def _stated(folder: Path, name: str, sha256: str) -> bytes:
    data = read_file(folder, name)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise VerificationError(f"{name} was altered")
    return data

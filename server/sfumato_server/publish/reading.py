"""One way to read a published set, whatever its layout: entries and pictures, one after another, in bounded memory.

Reading is not verifying: `verify_dataset` says whether the bytes are the signed ones, and whoever shows, converts or
measures a set calls it first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.imaging import decode_png
from sfumato_common.package.manifest import parse_manifest
from sfumato_common.strict import parse
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.publish.layout import ShardFiles
from sfumato_server.publish.manifest import (
    FORM,
    MANIFEST,
    ROOT,
    ROOT_SIGNATURE,
    SIGNATURE,
    DuplicateEntry,
    ImageEntry,
    PublishedManifest,
    parse_published,
)
from sfumato_server.publish.shard import placed, published_entries, read_file, read_shard
from sfumato_server.publish.tables import cover_of
from sfumato_server.publish.tally import Tallies, tally_of


@dataclass(frozen=True, eq=False)
class PublishedImage:
    """What one image is said to be, its file in the set, and its pixels, uint8 or uint16 [S, S] or [S, S, 3].

    `png` are the bytes that the pixels were decoded from, where the set has them as a PNG.
    """

    entry: ImageEntry
    file: str
    pixels: AnyArray
    png: bytes | None = None


class PublishedFolder:
    """A published set on disk. `manifest` is the coordinator's statement, `plan` the study's plan in it."""

    def __init__(self, folder: Path, manifest: PublishedManifest, plan: Plan) -> None:
        self.folder, self.manifest, self.plan = folder, manifest, plan

    def entries(self) -> Iterator[ImageEntry]:
        """What every image is said to be, by site, part and name; one shard's entries are in memory at a time."""
        for line in self.manifest.shards:
            _, entries, index = read_shard(self.folder, line)
            yield from published_entries(ShardFiles(line.site, line.part, line.shard), entries, index.left)

    def tallies(self) -> Tallies:
        """What cards count of all images."""
        found, cover = Tallies(), cover_of(self.certificates().values())
        for line in self.manifest.shards:
            _, entries, index = read_shard(self.folder, line)
            files = ShardFiles(line.site, line.part, line.shard)
            found.add(tally_of(line.site, placed(files, entries, index.left), cover))
        return found

    def duplicates(self) -> Iterator[tuple[str, DuplicateEntry]]:
        """What sites sent and is not published, because the same pixels are there already: the site, and which."""
        for line in self.manifest.shards:
            for item in read_shard(self.folder, line)[2].duplicates if line.duplicates else ():
                yield line.site, item

    def images(self) -> Iterator[PublishedImage]:
        """Every image in the same order, read as it is asked for. Raises VerificationError where a file is no PNG."""
        return map(self.image, self.entries())

    def image(self, entry: ImageEntry) -> PublishedImage:
        """The picture of one entry. Raises VerificationError when its file is missing or no PNG."""
        png = self.read(entry.file)
        return PublishedImage(entry, entry.file, decode_png(png), png)

    def pixels(self, file: str) -> AnyArray:
        """The pixels of one image's file. Raises VerificationError when it is missing or no PNG."""
        return decode_png(self.read(file))

    def read(self, file: str) -> bytes:
        """The bytes of a file of the set, named with `/`. Raises VerificationError when it cannot be read."""
        return read_file(self.folder, file)

    def statements(self) -> Iterator[str]:
        """Names of all files but the images: what is signed and said of the set, and what it leaves out as near."""
        yield from (MANIFEST, SIGNATURE, ROOT, ROOT_SIGNATURE, *sorted(self.manifest.files))
        for line in self.manifest.shards:
            yield from ShardFiles(line.site, line.part, line.shard).all
        yield from self.near_pictures()

    def near_pictures(self) -> Iterator[str]:
        """Files of images that are left out as nearly another, and are there so that anybody can compare them."""
        for line in self.manifest.shards:
            if line.near:
                _, entries, index = read_shard(self.folder, line)
                files, near = ShardFiles(line.site, line.part, line.shard), {item.name for item in index.near}
                yield from (files.near(at, own.name) for at, own in enumerate(entries) if own.name in near)

    def certificates(self) -> dict[str, Certificate]:
        """What each site states about its costs, in the heads that it signed. Raises VerificationError."""
        first = {line.site: ShardFiles(line.site, line.part, line.shard).head for line in self.manifest.shards[::-1]}
        return {site: parse_manifest(self.read(head)).certificate for site, head in sorted(first.items())}


def open_folder(folder: Path) -> PublishedFolder:
    """The set in `folder`, to be read; nothing is verified but the form of its manifest and plan.

    Raises ConfigError when the folder holds no published set, VerificationError when its manifest is malformed.
    """
    path = folder / MANIFEST
    if (folder / FORM).is_file():
        raise ConfigError(
            f"'{folder.name}' is a set in another form; take the set as it was published, or the folder 'statement' in "
            "it for what needs no picture"
        )
    if not path.is_file():
        raise ConfigError(f"'{folder.name}' is not a published data set: no {MANIFEST}; check the path")
    manifest = parse_published(path.read_bytes())
    try:
        return PublishedFolder(folder, manifest, parse(manifest.plan, Plan, MANIFEST))
    except ConfigError:
        raise VerificationError(f"{MANIFEST} holds no valid plan") from None

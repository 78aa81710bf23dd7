"""What a published data set consists of: the coordinator's manifest and root, and a shard's index, as strict records.

Every package shard has a line in the manifest. `root.json` is the small head that proofs of single images begin with:
the root of the Merkle tree over those lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from sfumato_common.crypto.merkle import leaf_hash, merkle_root
from sfumato_common.files import canonical_json
from sfumato_common.package.manifest import Hash, ImageName, ManifestImage, Shard
from sfumato_common.strict import Strict, read_signed
from sfumato_common.study.plan import Name
from sfumato_common.study.words import Part
from sfumato_server.publish.layout import key_file

FORMAT = "sfumato-published/4"
MANIFEST, SIGNATURE, LABELS, COORDINATOR_KEY = "manifest.json", "manifest.sig", "labels.csv", "coordinator.pem"
ROOT, ROOT_SIGNATURE = "root.json", "root.sig"
REPORT = "report.html"
SPLIT_TABLES = {"train": "train.csv", "test": "test.csv"}
# stands in a set that was converted: which form it has
FORM = "form.json"
Day = Annotated[str, Field(pattern=r"\A\d{4}-\d{2}-\d{2}\z")]
Count = Annotated[int, Field(ge=0)]
_Record = TypeVar("_Record", bound=Strict)


class FileEntry(Strict):
    """One file's size in bytes and sha256."""

    bytes: Count
    sha256: Hash


class ImageEntry(ManifestImage):
    """One published image: what its site signed, of which site, and where it lies in the folder."""

    site: Name
    file: str


class DuplicateEntry(Strict):
    """An image of a shard that was not published: the same pixels, or nearly, are there under another name."""

    name: ImageName
    kept_site: Name
    kept_name: ImageName


class ShardIndex(Strict):
    """What the coordinator says of one shard beside the site's own entries: which of its images are not published.

    All that is said of an image stands once, in the entries that its site signed; so does the hash of its file.
    """

    format: Literal["sfumato-index/1"]
    site: Name
    part: Part
    shard: Shard
    duplicates: list[DuplicateEntry]
    # what the plan's 'balance' does not draw
    undrawn: list[ImageName]
    # what nearly equals a published image; its picture is there, so that anybody can compare them
    near: list[DuplicateEntry] = Field(default_factory=list, exclude_if=lambda entries: not entries)
    # what nearly equals an image that an earlier version withdrew
    withdrawn: list[ImageName] = Field(default_factory=list, exclude_if=lambda names: not names)

    @property
    def left(self) -> set[str]:
        """Names of all images of the shard that are not published."""
        return {*(item.name for item in (*self.duplicates, *self.near)), *self.undrawn, *self.withdrawn}

    def encode(self) -> bytes:
        """The bytes of the index file."""
        return canonical_json(self.model_dump())


class ShardLine(Strict):
    """One shard in the manifest: how many of its images are published and how many left out, and what proves them.

    `head` and `index` are sha256 of the site's signed head and of the index file; `root` is that of the site's entries.
    """

    site: Name
    part: Part
    shard: Shard
    shards: Shard
    images: Count
    duplicates: Count
    undrawn: Count
    near: Count = Field(default=0, exclude_if=lambda count: not count)
    withdrawn: Count = Field(default=0, exclude_if=lambda count: not count)
    head: Hash
    root: Hash
    index: Hash

    @property
    def signed(self) -> int:
        """How many images its site signed."""
        return self.images + self.duplicates + self.undrawn + self.near + self.withdrawn

    @property
    def leaf(self) -> bytes:
        """Its hash in the tree over all shards."""
        return leaf_hash(canonical_json(self.model_dump()))


class PublishedManifest(Strict):
    """The coordinator's statement; its canonical JSON is what `manifest.sig` signs (domain "published").

    `files` has every file but images, what `shards` covers, and the signed statements themselves.
    """

    format: Literal["sfumato-published/4"]
    study: Name
    created: Day
    plan_hash: Hash
    plan: dict[str, Any]
    # which parts of its release each site sent, whole
    packages: Annotated[dict[Name, Annotated[list[Part], Field(min_length=1)]], Field(min_length=1)]
    left_out: dict[Name, str]
    shards: Annotated[list[ShardLine], Field(min_length=1)]
    files: dict[str, FileEntry]

    @property
    def sites(self) -> list[str]:
        """Names of the sites that images came from, sorted."""
        return sorted(self.packages)

    @property
    def images(self) -> int:
        """How many images are published."""
        return sum(shard.images for shard in self.shards)

    @property
    def root(self) -> PublishedRoot:
        """The head that proofs of single images begin with."""
        return PublishedRoot(
            format="sfumato-root/1",
            study=self.study,
            created=self.created,
            plan_hash=self.plan_hash,
            images=self.images,
            shards=len(self.shards),
            root=merkle_root(shard.leaf for shard in self.shards).hex(),
        )

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json(self.model_dump())


class PublishedRoot(Strict):
    """The coordinator's small head, signed by `root.sig` (domain "root"): the root over the lines of all shards."""

    format: Literal["sfumato-root/1"]
    study: Name
    created: Day
    plan_hash: Hash
    images: Count
    shards: Annotated[int, Field(ge=1)]
    root: Hash

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json(self.model_dump())


def parse_published(data: bytes) -> PublishedManifest:
    """Strict reading. Raises VerificationError unless `data` is the canonical form of a manifest."""
    return parse_canonical(data, PublishedManifest, MANIFEST)


def parse_canonical(data: bytes, kind: type[_Record], name: str) -> _Record:
    """The record in `data`. Raises VerificationError, naming the file `name`, unless it is in its one byte form."""
    return read_signed(
        data,
        kind,
        lambda found: canonical_json(found.model_dump()),
        f"{name} is malformed; do not trust this data set",
        f"{name} is not in canonical form; do not trust this data set",
    )


def file_entry(content: bytes) -> FileEntry:
    """Size and sha256 of a file's bytes."""
    return FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def stated_files(sites: Sequence[str], features: Sequence[str] = ()) -> set[str]:
    """Every file that `files` must list; `features` names that of vectors where the plan has some."""
    return {LABELS, *SPLIT_TABLES.values(), REPORT, COORDINATOR_KEY, *features, *map(key_file, sites)}

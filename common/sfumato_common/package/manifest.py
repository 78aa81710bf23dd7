"""What a site states of one shard of a release, as strict records: a head that it signs, and the entries under it.

The canonical JSON of the head is what is signed. Entries are a line of canonical JSON each, in the order of names; the
head holds the root of their Merkle tree, so that one entry is proved without the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from sfumato_common.crypto.merkle import leaf_hash, merkle_root
from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.strict import Strict, read_signed
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.plan import Name
from sfumato_common.study.shards import MOST_IMAGES
from sfumato_common.study.words import GuaranteeLevel, Part, part_of
from sfumato_common.types import image_shape

FORMAT = "sfumato-package/2"
LARGEST_ENTRY = 1024  # bytes of a line
MOST_SHARDS = 9999
Hash = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
ImageName = Annotated[str, Field(pattern=r"\A[0-9a-f]{16,64}\z")]
Shard = Annotated[int, Field(ge=1, le=MOST_SHARDS)]


class ImageFacts(Strict):
    """What one synthetic image is said to be, from the seal to the published set; `name` is random and says nothing."""

    name: ImageName
    label: Name
    model: Name
    method: Name
    guarantee: GuaranteeLevel


class ManifestImage(ImageFacts):
    """One image of a package: what it is said to be, its file and its pixels."""

    sha256: Hash
    pixel_sha256: Hash

    @property
    def facts(self) -> ImageFacts:
        """What it is said to be."""
        return ImageFacts(**self.model_dump(exclude={"sha256", "pixel_sha256"}))

    @property
    def line(self) -> bytes:
        """Its bytes among the entries, without the end of the line: a leaf of the tree.

        What `canonical_json` makes of it, which is a test's: no field of a valid entry has a sign that JSON escapes.
        """
        return (
            f'{{"guarantee":"{self.guarantee}","label":"{self.label}","method":"{self.method}","model":"{self.model}",'
            f'"name":"{self.name}","pixel_sha256":"{self.pixel_sha256}","sha256":"{self.sha256}"}}'
        ).encode("ascii")


class Manifest(Strict):
    """The head: the whole statement of a site about one shard; `created` is a date, never a time.

    `shard` of `shards` counts from 1; `images` is how many there are, `root` that of the tree over their lines.
    """

    format: Literal["sfumato-package/2"]
    site: Name
    study: Name
    plan_hash: Hash
    part: Part
    shard: Shard
    shards: Shard
    created: Annotated[str, Field(pattern=r"\A\d{4}-\d{2}-\d{2}\z")]
    size: Annotated[int, Field(ge=1, le=1024)]
    channels: Literal[1, 3]
    bits: Literal[8, 16]
    certificate: Certificate
    images: Annotated[int, Field(ge=1, le=MOST_IMAGES)]
    root: Hash

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Manifest:
        if self.shard > self.shards:
            raise ValueError("a shard's number is beyond how many there are")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image of integers."""
        return image_shape(self.size, self.channels)

    def encode(self) -> bytes:
        """The bytes that are hashed and signed."""
        return canonical_json(self.model_dump())


def parse_manifest(data: bytes) -> Manifest:
    """Strict reading of a head's bytes. Raises VerificationError unless they are the canonical form of one."""
    return read_signed(
        data,
        Manifest,
        Manifest.encode,
        "a package's manifest is malformed; ask the sender again",
        "a package's manifest is not in canonical form; ask the sender again",
    )


def parse_entry(line: bytes) -> ManifestImage:
    """One line of the entries. Raises VerificationError unless it is the canonical form of an entry."""
    try:
        entry = ManifestImage.model_validate_json(line[: LARGEST_ENTRY + 1])
    except (ValidationError, ValueError):
        raise VerificationError("an entry of a package's manifest is malformed; ask the sender again") from None
    if entry.line != line:
        raise VerificationError("an entry of a package's manifest is not in canonical form; ask the sender again")
    return entry


def write_entries(entries: Iterable[ManifestImage]) -> bytes:
    """The bytes of the entries beside the head."""
    return b"".join(entry.line + b"\n" for entry in entries)


def parse_entries(data: bytes, head: Manifest) -> list[ManifestImage]:
    """The entries under `head`, in order.

    Raises VerificationError unless they are those whose root it states: each once, in the order of names, of its part.
    """
    lines = data.split(b"\n")
    if lines.pop() or len(lines) != head.images or merkle_root(map(leaf_hash, lines)).hex() != head.root:
        raise VerificationError("a package's entries are not those that its manifest states; ask the sender again")
    entries = [parse_entry(line) for line in lines]
    if any(part_of(entry.guarantee) != head.part for entry in entries):
        raise VerificationError("a package mixes formal images with others, which are judged and sealed apart")
    names = [entry.name for entry in entries]
    if names != sorted(set(names)):
        raise VerificationError("a package's manifest lists an image twice or out of order")
    return entries

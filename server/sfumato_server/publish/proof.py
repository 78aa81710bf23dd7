"""One image of a published set verified alone: pixels, the entry that its site signed, and two roots above it.

A proof has the entry, its path to the root in its site's signed head, that shard's line in the manifest, and the line's
path to the root that the coordinator signed: a few KB, however large the set is. A site signs images that the set
leaves out, too: where there are such in the shard, the proof has their list, whose hash is in the line.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.crypto.merkle import LARGEST_PATH, check_inclusion, inclusion_path, leaf_hash
from sfumato_common.crypto.signatures import fingerprint, is_same_key, verify
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.package import check_pixels
from sfumato_common.package.manifest import Hash, Manifest, ManifestImage, parse_manifest
from sfumato_common.strict import Strict
from sfumato_common.study.words import part_of
from sfumato_common.types import AnyArray
from sfumato_server.publish.layout import ShardFiles, key_file
from sfumato_server.publish.manifest import (
    ROOT_SIGNATURE,
    Count,
    PublishedRoot,
    ShardIndex,
    ShardLine,
    parse_canonical,
)
from sfumato_server.publish.shard import read_file, read_shard
from sfumato_server.publish.verify import read_signed

LARGEST_PROOF = 1 << 20
Signature = Annotated[str, Field(pattern=r"\A[0-9a-f]{128}\z")]
Levels = Annotated[list[Hash], Field(max_length=LARGEST_PATH)]


class Proof(Strict):
    """What leads from one entry to the coordinator's signed root; `place` and `line_place` count leaves from 0.

    `index` says which images of the shard the set leaves out; None where it leaves out none.
    """

    format: Literal["sfumato-proof/1"]
    entry: ManifestImage
    place: Count
    path: Levels
    head: Annotated[str, Field(max_length=LARGEST_PROOF)]
    head_signature: Signature
    site_key: Annotated[str, Field(max_length=4096)]
    line: ShardLine
    index: ShardIndex | None = Field(default=None, exclude_if=lambda index: index is None)
    line_place: Count
    line_path: Levels
    root: PublishedRoot
    root_signature: Signature

    def encode(self) -> bytes:
        """The proof file."""
        return canonical_json(self.model_dump())


@dataclass(frozen=True)
class ProvedImage:
    """What was found to hold of one image, and whose keys signed it; `compared_site`: the caller brought the site's."""

    study: str
    plan_hash: str
    site: str
    name: str
    label: str
    model: str
    method: str
    guarantee: str
    images: int
    coordinator_fingerprint: str
    site_fingerprint: str
    compared_site: bool

    def summary(self) -> str:
        """One line for the screen."""
        compared = "compared" if self.compared_site else "NOT compared"
        what = f"image {self.name} of site '{self.site}' is one of the {self.images} of study '{self.study}'"
        said = f"label {self.label}, by {self.method} from {self.model}, guarantee {self.guarantee}"
        keys = (
            f"coordinator's key {self.coordinator_fingerprint} (compared), site's {self.site_fingerprint} ({compared})"
        )
        return f"{what}, and its pixels are those that the site signed: {said}; {keys}"


def prove(folder: Path, image: str) -> Proof:
    """A proof of one image of the published set in `folder`, named as its file there or by its name alone.

    Raises ConfigError when the set has no such image, VerificationError when what is read of the set does not hold.
    """
    manifest, _ = read_signed(folder, None)
    name = Path(image).name.removesuffix(".png")
    for number, line in enumerate(manifest.shards):
        files = ShardFiles(line.site, line.part, line.shard)
        # a look for the name costs far less than reading the entries of every shard
        if f'"name":"{name}"'.encode() not in read_file(folder, files.entries):
            continue
        head, entries, index = read_shard(folder, line)
        place = next((at for at, entry in enumerate(entries) if entry.name == name), None)
        if place is None or name in index.left:
            continue
        return Proof(
            format="sfumato-proof/1",
            entry=entries[place],
            place=place,
            path=_hex(inclusion_path([leaf_hash(entry.line) for entry in entries], place)),
            head=head.encode().decode("ascii"),
            head_signature=read_file(folder, files.signature).hex(),
            site_key=read_file(folder, key_file(line.site)).decode("ascii"),
            line=line,
            index=index if index.left else None,
            line_place=number,
            line_path=_hex(inclusion_path([other.leaf for other in manifest.shards], number)),
            root=manifest.root,
            root_signature=read_file(folder, ROOT_SIGNATURE).hex(),
        )
    raise ConfigError(f"the set holds no image '{name}'; labels.csv names them all")


def read_proof(data: bytes) -> Proof:
    """Strict reading. Raises VerificationError unless `data` is the canonical form of a proof; not checked yet."""
    if len(data) > LARGEST_PROOF:
        raise VerificationError("the proof is larger than any; ask for another")
    return parse_canonical(data, Proof, "the proof")


def check_proof(proof: Proof, coordinator_key: bytes, site_key: bytes | None = None) -> Manifest:
    """The site's head over the entry, when everything leads to the coordinator's signature (keys in PEM).

    Raises VerificationError at the first thing that does not hold.
    """
    verify(coordinator_key, "root", proof.root.encode(), bytes.fromhex(proof.root_signature))
    line = proof.line
    check_inclusion(
        bytes.fromhex(proof.root.root), line.leaf, proof.line_place, proof.root.shards, _bytes(proof.line_path)
    )
    signed, own = proof.head.encode("utf-8"), proof.site_key.encode("utf-8")
    if hashlib.sha256(signed).hexdigest() != line.head:
        raise VerificationError("the proof's head is not the one that the coordinator published")
    if site_key is not None and not is_same_key(own, site_key):
        raise VerificationError(f"the key that site '{line.site}' signed with is not the trusted key")
    verify(own, "package", signed, bytes.fromhex(proof.head_signature))
    head = parse_manifest(signed)
    if (head.site, head.part, head.shard, head.root) != (line.site, line.part, line.shard, line.root):
        raise VerificationError("the proof's head is of another site, part or shard than the coordinator published")
    check_inclusion(bytes.fromhex(head.root), leaf_hash(proof.entry.line), proof.place, head.images, _bytes(proof.path))
    _check_published(proof)
    if part_of(proof.entry.guarantee) != head.part or head.study != proof.root.study:
        raise VerificationError("the proof's entry is of another part or study than its head")
    return head


def _check_published(proof: Proof) -> None:
    """Raise VerificationError for an image that its site signed, and the set leaves out."""
    line, index = proof.line, proof.index
    if index is None:
        if line.images != line.signed:
            raise VerificationError("the proof does not say which images of its shard are left out; ask for a new one")
    elif hashlib.sha256(index.encode()).hexdigest() != line.index:
        raise VerificationError("the proof leaves out other images than the coordinator published")
    elif proof.entry.name in index.left:
        raise VerificationError("the proof is of an image that its site signed and the set leaves out")


def verify_image(pixels: AnyArray, proof: Proof, coordinator_key: bytes, site_key: bytes | None = None) -> ProvedImage:
    """Verify one image's `pixels`, [S, S] or [S, S, 3], from whatever file they came. Raises VerificationError."""
    head = check_proof(proof, coordinator_key, site_key)
    check_pixels(proof.entry, pixels, head.shape, head.bits)
    entry = proof.entry
    return ProvedImage(
        study=head.study,
        plan_hash=proof.root.plan_hash,
        site=head.site,
        name=entry.name,
        label=entry.label,
        model=entry.model,
        method=entry.method,
        guarantee=entry.guarantee,
        images=proof.root.images,
        coordinator_fingerprint=fingerprint(coordinator_key),
        site_fingerprint=fingerprint(proof.site_key.encode("utf-8")),
        compared_site=site_key is not None,
    )


def _hex(path: list[bytes]) -> list[str]:
    return [item.hex() for item in path]


def _bytes(path: list[str]) -> list[bytes]:
    return [bytes.fromhex(item) for item in path]

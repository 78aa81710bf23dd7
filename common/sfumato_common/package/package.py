"""Building and opening a site's signed release package, which is one shard of a part of its release.

Members: `images/NAME.png`, `manifest.entries` (a line an image), `manifest.json` (the canonical head), `manifest.sig`
(Ed25519 over the head, domain "package"). A package is opened from bytes or a file, and its images are read one by one.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import ValidationError

from sfumato_common.crypto.merkle import leaf_hash, merkle_root
from sfumato_common.crypto.signatures import verify
from sfumato_common.errors import VerificationError
from sfumato_common.imaging import decode_png, decode_pngs, pixel_hash
from sfumato_common.package.archive import ArchiveWriter, Member, read_directory, read_last, read_member
from sfumato_common.package.manifest import (
    FORMAT,
    ImageFacts,
    Manifest,
    ManifestImage,
    parse_entries,
    parse_manifest,
    write_entries,
)
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.shards import MOST_IMAGES
from sfumato_common.study.words import part_of
from sfumato_common.types import AnyArray, pixel_dtype

MANIFEST, SIGNATURE, ENTRIES = "manifest.json", "manifest.sig", "manifest.entries"
Source = bytes | Path
T = TypeVar("T")
_AT_ONCE = 1 << 15  # bytes of pixels that are checked together: more do not stay in the cache of a core


@dataclass(frozen=True)
class PackageImage:
    """One synthetic image: what it is said to be, and its PNG bytes."""

    facts: ImageFacts
    png: bytes


@dataclass(frozen=True)
class Package:
    """An opened package, whose head and entries have been verified; `manifest` and `signature` are the signed bytes."""

    head: Manifest
    entries: tuple[ManifestImage, ...]
    manifest: bytes
    signature: bytes
    _source: Source = field(repr=False)
    _members: Mapping[str, Member] = field(repr=False)

    @property
    def certificate(self) -> Certificate:
        """What the site states that its release cost."""
        return self.head.certificate

    def pngs(self) -> Iterator[tuple[ManifestImage, bytes]]:
        """Every entry with its PNG, read as it is asked for. Raises VerificationError where one is not as signed."""
        with _opened(self._source) as stream:
            for entry in self.entries:
                member = self._members.get(image_member(entry.name))
                if member is None:
                    raise VerificationError(f"image {entry.name} is missing from its package")
                png = read_member(stream, member)
                if hashlib.sha256(png).hexdigest() != entry.sha256:
                    raise VerificationError(f"image {entry.name} is not the one that was signed")
                yield entry, png

    def images(self) -> Iterator[PackageImage]:
        """Every image in the order of names."""
        return (PackageImage(entry.facts, png) for entry, png in self.pngs())


def build_package(
    *,
    site: str,
    study: str,
    plan_hash: str,
    certificate: Certificate,
    images: Sequence[PackageImage],
    sign: Callable[[bytes], bytes],
    created: date | None = None,
    shard: int = 1,
    shards: int = 1,
) -> bytes:
    """The bytes of shard `shard` of `shards`; the same for the same input. `sign` is `SiteIdentity.sign_package`.

    Images are ordered by their (random) names, so that the order says nothing. Raises VerificationError when an image
    is not a plain PNG, sizes differ, or a name, label or the certificate is not as the format wants it.
    """
    stream, entries, form = io.BytesIO(), list[ManifestImage](), None
    writer = ArchiveWriter(stream)
    for image in sorted(images, key=lambda image: image.facts.name):
        pixels = decode_png(image.png)
        if form not in (None, (pixels.shape, pixels.dtype)) or (entries and entries[-1].name == image.facts.name):
            raise VerificationError("a package's images are all of one size and depth, each under a name of its own")
        form = pixels.shape, pixels.dtype
        entries.append(_entry(image, pixels))
        writer.add(image_member(image.facts.name), image.png)
    if form is None:
        raise VerificationError("a package needs at least one image")
    shape, dtype = form
    try:
        lines = write_entries(entries)
        head = Manifest.model_validate(
            {
                "format": FORMAT,
                "site": site,
                "study": study,
                "plan_hash": plan_hash,
                "part": part_of(entries[0].guarantee),
                "shard": shard,
                "shards": shards,
                "created": (created or datetime.now(UTC).date()).isoformat(),
                "size": shape[0],
                "channels": 1 if len(shape) == 2 else 3,
                "bits": 8 * dtype.itemsize,
                "certificate": certificate,
                "images": len(entries),
                "root": merkle_root(leaf_hash(entry.line) for entry in entries).hex(),
            }
        )
        signed = head.encode()
    except (ValidationError, ValueError, TypeError):
        raise VerificationError("a name, label or certificate does not fit the package's format") from None
    parse_entries(lines, parse_manifest(signed))
    for name, data in ((ENTRIES, lines), (MANIFEST, signed), (SIGNATURE, sign(signed))):
        writer.add(name, data)
    writer.close()
    return stream.getvalue()


def open_package(
    source: Source,
    public_key: bytes,
    *,
    expected_site: str,
    expected_plan_hash: str,
    largest_bytes: int,
    most_images: int = MOST_IMAGES,
) -> Package:
    """Verify everything about a package: sizes, archive, signature (PEM key), site, plan, every hash and picture.

    `source` is its bytes, or its file, of which one image at a time is read. Raises VerificationError at the first
    thing that does not hold.
    """
    if (len(source) if isinstance(source, bytes) else source.stat().st_size) > largest_bytes:
        raise VerificationError("the package is larger than the plan allows")
    with _opened(source) as stream:
        members, signed, signature, lines = _read_statement(stream, most_images)
        verify(public_key, "package", signed, signature)
        head = parse_manifest(signed)
        if head.site != expected_site:
            raise VerificationError("the package was made by another site")
        if head.plan_hash != expected_plan_hash:
            raise VerificationError("the package was made under another plan")
        entries = parse_entries(lines, head)
        if members.keys() - {MANIFEST, SIGNATURE, ENTRIES} != {image_member(entry.name) for entry in entries}:
            raise VerificationError("the package's images are not the ones that its manifest lists")
        for some in at_once(entries, head.shape, head.bits):
            pngs = [read_member(stream, members[image_member(entry.name)]) for entry in some]
            check_images(some, pngs, head.shape, head.bits)
    return Package(head, tuple(entries), signed, signature, source, members)


def reopen_package(path: Path, head: Manifest) -> Package:
    """A package whose head was verified before: its entries are those of the head; images are checked as they are read.

    Raises VerificationError where the file is another one by now.
    """
    with path.open("rb") as stream:
        members, signed, signature, lines = _read_statement(stream, MOST_IMAGES)
    if signed != head.encode():
        raise VerificationError("a package was replaced while it was read; publish again")
    return Package(head, tuple(parse_entries(lines, head)), signed, signature, path, members)


def entries_of(path: Path, head: Manifest) -> list[ManifestImage]:
    """The entries of a package whose head was verified before, alone. Raises VerificationError as `reopen_package`."""
    with path.open("rb") as stream:
        return parse_entries(read_member(stream, read_last(stream, (ENTRIES, MANIFEST, SIGNATURE))[ENTRIES]), head)


def at_once(images: Sequence[T], shape: tuple[int, ...], bits: int) -> Iterator[Sequence[T]]:
    """As many images of that form at a time as are checked fastest together."""
    number = max(1, _AT_ONCE // (math.prod(shape) * bits // 8))
    return (images[start : start + number] for start in range(0, len(images), number))


def check_images(entries: Sequence[ManifestImage], pngs: Sequence[bytes], shape: tuple[int, ...], bits: int) -> None:
    """Check PNGs against their entries, bytes and pixels; what does not hold is told of the first. VerificationError.

    `check_image` of each says the same, and is slower.
    """
    for entry, png in zip(entries, pngs, strict=True):
        if hashlib.sha256(png).hexdigest() != entry.sha256:
            raise VerificationError(f"image {entry.name} is not the one that was signed")
    for entry, pixels in zip(entries, decode_pngs(pngs), strict=True):
        check_pixels(entry, pixels, shape, bits)


def peek_images(path: Path) -> Iterator[bytes]:
    """The PNGs of a package that was admitted before, in the order of names, one read at a time, not verified again."""
    with path.open("rb") as stream:
        members, signed, _, lines = _read_statement(stream, MOST_IMAGES)
        for entry in parse_entries(lines, parse_manifest(signed)):
            yield read_member(stream, members[image_member(entry.name)])


def check_image(entry: ManifestImage, png: bytes, shape: tuple[int, ...], bits: int) -> None:
    """Check one PNG against its entry, bytes and pixels. Raises VerificationError."""
    check_images([entry], [png], shape, bits)


def check_pixels(entry: ManifestImage, pixels: AnyArray, shape: tuple[int, ...], bits: int) -> None:
    """Raise VerificationError unless `pixels` are those of the entry, in whatever file format they came.

    `shape` is (S, S) or (S, S, 3) and `bits` 8 or 16, as the site signed them for all images of the shard.
    """
    if (pixels.shape, pixels.dtype) != (shape, pixel_dtype(bits)) or pixel_hash(pixels) != entry.pixel_sha256:
        raise VerificationError(f"image {entry.name} decodes to other pixels than were signed")


def image_member(name: str) -> str:
    """What an image is called in the archive."""
    return f"images/{name}.png"


def _read_statement(stream: BinaryIO, most_images: int) -> tuple[dict[str, Member], bytes, bytes, bytes]:
    """The members of a package, its head, signature and entries: bytes that nobody has verified."""
    members = read_directory(stream, most_images + 3)
    if not {MANIFEST, SIGNATURE, ENTRIES} <= members.keys():
        raise VerificationError("the package has no signed manifest; ask the sender again")
    signed, signature, lines = (read_member(stream, members[name]) for name in (MANIFEST, SIGNATURE, ENTRIES))
    return members, signed, signature, lines


def _opened(source: Source) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _entry(image: PackageImage, pixels: AnyArray) -> ManifestImage:
    digest = hashlib.sha256(image.png).hexdigest()
    return ManifestImage.model_construct(**image.facts.model_dump(), sha256=digest, pixel_sha256=pixel_hash(pixels))

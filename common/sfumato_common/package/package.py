"""Building and opening a site's signed release package.

Members: `manifest.json` (canonical), `manifest.sig` (Ed25519 over it, domain "package"), `images/NAME.png`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pydantic import ValidationError

from sfumato_common.crypto.signatures import verify
from sfumato_common.errors import VerificationError
from sfumato_common.imaging import decode_png, pixel_hash
from sfumato_common.package.archive import read_archive, write_archive
from sfumato_common.package.manifest import FORMAT, LARGEST_SET, ImageFacts, Manifest, ManifestImage, parse_manifest
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.words import Part
from sfumato_common.types import PlanHash, SiteName, pixel_dtype

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"


@dataclass(frozen=True)
class PackageImage:
    """One synthetic image: what it is said to be, and its PNG bytes."""

    facts: ImageFacts
    png: bytes


@dataclass(frozen=True)
class Package:
    """An opened package: everything in it has been verified. `manifest` and `signature` are the signed bytes."""

    site: SiteName
    study: str
    plan_hash: PlanHash
    part: Part
    created: str
    size: int
    channels: int
    bits: int
    certificate: Certificate
    images: tuple[PackageImage, ...]
    pixel_hashes: Mapping[str, str]
    manifest: bytes
    signature: bytes


def build_package(
    *,
    site: str,
    study: str,
    plan_hash: str,
    certificate: Certificate,
    images: Sequence[PackageImage],
    sign: Callable[[bytes], bytes],
    created: date | None = None,
) -> bytes:
    """The package's bytes; the same for the same input. `sign` is `SiteIdentity.sign_package`.

    Images are ordered by their (random) names, so that the order says nothing. Raises VerificationError when an image
    is not a plain PNG, sizes differ, or a name, label or the certificate is not as the format wants it.
    """
    ordered = sorted(images, key=lambda image: image.facts.name)
    pixels = [decode_png(image.png) for image in ordered]
    if not pixels or len({(item.shape, item.dtype) for item in pixels}) != 1:
        raise VerificationError("a package needs at least one image, all of one size and depth")
    try:
        manifest = Manifest.model_validate(
            {
                "format": FORMAT,
                "site": site,
                "study": study,
                "plan_hash": plan_hash,
                "created": (created or datetime.now(UTC).date()).isoformat(),
                "size": pixels[0].shape[0],
                "channels": 1 if pixels[0].ndim == 2 else 3,
                "bits": 8 * pixels[0].itemsize,
                "certificate": certificate,
                "images": [_entry(image, pixel_hash(item)) for image, item in zip(ordered, pixels, strict=True)],
            }
        ).encode()
    except (ValidationError, ValueError, TypeError):
        raise VerificationError("a name, label or certificate does not fit the package's format") from None
    parse_manifest(manifest)
    members = {f"images/{image.facts.name}.png": image.png for image in ordered}
    return write_archive({**members, MANIFEST: manifest, SIGNATURE: sign(manifest)})


def open_package(
    data: bytes,
    public_key: bytes,
    *,
    expected_site: str,
    expected_plan_hash: str,
    largest_bytes: int,
    most_images: int = LARGEST_SET,
) -> Package:
    """Verify everything about a package: sizes, archive, signature (PEM key), site, plan, every hash and picture.

    Raises VerificationError at the first thing that does not hold.
    """
    if len(data) > largest_bytes:
        raise VerificationError("the package is larger than the plan allows")
    members = read_archive(data, most_images + 2)
    if MANIFEST not in members or SIGNATURE not in members:
        raise VerificationError("the package has no signed manifest; ask the sender again")
    signed, signature = members.pop(MANIFEST), members.pop(SIGNATURE)
    verify(public_key, "package", signed, signature)
    manifest = parse_manifest(signed)
    if manifest.site != expected_site:
        raise VerificationError("the package was made by another site")
    if manifest.plan_hash != expected_plan_hash:
        raise VerificationError("the package was made under another plan")
    if set(members) != {f"images/{image.name}.png" for image in manifest.images}:
        raise VerificationError("the package's images are not the ones that its manifest lists")
    for image in manifest.images:
        check_image(image, members[f"images/{image.name}.png"], manifest.shape, manifest.bits)
    return Package(
        site=SiteName(manifest.site),
        study=manifest.study,
        plan_hash=PlanHash(manifest.plan_hash),
        part=manifest.part,
        created=manifest.created,
        size=manifest.size,
        channels=manifest.channels,
        bits=manifest.bits,
        certificate=manifest.certificate,
        images=tuple(_image(entry, members[f"images/{entry.name}.png"]) for entry in manifest.images),
        pixel_hashes={entry.name: entry.pixel_sha256 for entry in manifest.images},
        manifest=signed,
        signature=signature,
    )


def check_image(entry: ManifestImage, png: bytes, shape: tuple[int, ...], bits: int) -> None:
    """Check one PNG against its manifest entry, bytes and pixels. Raises VerificationError."""
    if hashlib.sha256(png).hexdigest() != entry.sha256:
        raise VerificationError(f"image {entry.name} is not the one that was signed")
    pixels = decode_png(png)
    if (pixels.shape, pixels.dtype) != (shape, pixel_dtype(bits)) or pixel_hash(pixels) != entry.pixel_sha256:
        raise VerificationError(f"image {entry.name} decodes to other pixels than were signed")


def _entry(image: PackageImage, pixels: str) -> dict[str, str]:
    return {**image.facts.model_dump(), "sha256": hashlib.sha256(image.png).hexdigest(), "pixel_sha256": pixels}


def _image(entry: ManifestImage, png: bytes) -> PackageImage:
    return PackageImage(ImageFacts(**entry.model_dump(exclude={"sha256", "pixel_sha256"})), png)

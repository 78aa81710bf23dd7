"""What a published data set consists of: the coordinator's manifest as strict records, file names, labels.csv."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.package.features import FILE
from sfumato_common.package.manifest import Hash, ImageFacts, ImageName
from sfumato_common.strict import Strict
from sfumato_common.study.plan import Name
from sfumato_common.study.words import Part

FORMAT = "sfumato-published/3"
MANIFEST, SIGNATURE, LABELS, COORDINATOR_KEY = "manifest.json", "manifest.sig", "labels.csv", "coordinator.pem"
REPORT = "report.html"
SPLIT_TABLES = {"train": "train.csv", "test": "test.csv"}


class FileEntry(Strict):
    """One file's size in bytes and sha256."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Hash


class ImageEntry(ImageFacts):
    """One published image; its file is `image_file(site, name)`."""

    site: Name
    pixel_sha256: Hash


class DuplicateEntry(Strict):
    """An image of a site's package that was not published, because the same pixels are there under another name."""

    site: Name
    name: ImageName
    kept_site: Name
    kept_name: ImageName


class PublishedManifest(Strict):
    """The coordinator's statement; its canonical JSON is what `manifest.sig` signs (domain "published")."""

    format: Literal["sfumato-published/3"]
    study: Name
    created: Annotated[str, Field(pattern=r"\A\d{4}-\d{2}-\d{2}\z")]
    plan_hash: Hash
    plan: dict[str, Any]
    # which parts of its release each site sent: one signed package a part
    packages: Annotated[dict[Name, Annotated[list[Part], Field(min_length=1)]], Field(min_length=1)]
    left_out: dict[Name, str]
    images: Annotated[list[ImageEntry], Field(min_length=1)]
    duplicates: list[DuplicateEntry]
    files: dict[str, FileEntry]

    @property
    def sites(self) -> list[str]:
        """Names of the sites that images came from, sorted."""
        return sorted(self.packages)

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json(self.model_dump())


def parse_published(data: bytes) -> PublishedManifest:
    """Strict reading. Raises VerificationError unless `data` is the canonical form of a manifest."""
    try:
        manifest = PublishedManifest.model_validate(json.loads(data))
        canonical = manifest.encode()
    except (ValidationError, ValueError, RecursionError):
        raise VerificationError(f"{MANIFEST} is malformed; do not trust this data set") from None
    if canonical != data:
        raise VerificationError(f"{MANIFEST} is not in canonical form; do not trust this data set")
    return manifest


def file_entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """The entry of every file by its name."""
    return {
        name: FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    }


def image_file(site: str, name: str) -> str:
    """Where an image lies in the published folder."""
    return f"images/{site}/{name}.png"


def provenance_files(site: str, part: Part) -> tuple[str, str, str]:
    """Where the signed manifest of one of a site's packages, its signature and the site's public key lie."""
    return tuple(f"provenance/{site}/{part}/{name}" for name in (MANIFEST, SIGNATURE, "key.pem"))  # type: ignore[return-value]


def expected_files(
    packages: Mapping[str, Sequence[Part]], images: Iterable[ImageEntry], features: bool = False
) -> set[str]:
    """Every file that the manifest must list: all of the folder but the manifest itself and its signature."""
    files = {
        *([FILE] if features else []),
        LABELS,
        *SPLIT_TABLES.values(),
        REPORT,
        COORDINATOR_KEY,
        *(image_file(image.site, image.name) for image in images),
    }
    return files.union(*(provenance_files(site, part) for site, parts in packages.items() for part in parts))

"""What a package's manifest says, as strict records; its canonical JSON is what the site signs."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.strict import Strict
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.plan import Name
from sfumato_common.study.words import GuaranteeLevel, Part, part_of
from sfumato_common.types import image_shape

FORMAT = "sfumato-package/1"
LARGEST_SET = 800_000  # images
Hash = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
ImageName = Annotated[str, Field(pattern=r"\A[0-9a-f]{16,64}\z")]


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


class Manifest(Strict):
    """The whole statement of a site about one release; `created` is a date, never a time."""

    format: Literal["sfumato-package/1"]
    site: Name
    study: Name
    plan_hash: Hash
    created: Annotated[str, Field(pattern=r"\A\d{4}-\d{2}-\d{2}\z")]
    size: Annotated[int, Field(ge=1, le=1024)]
    channels: Literal[1, 3]
    bits: Literal[8, 16]
    certificate: Certificate
    images: Annotated[list[ManifestImage], Field(min_length=1, max_length=LARGEST_SET)]

    @property
    def part(self) -> Part:
        """Which part of a release this is: all of its images are formal, or none is."""
        return part_of(self.images[0].guarantee)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image of integers."""
        return image_shape(self.size, self.channels)

    def encode(self) -> bytes:
        """The bytes that are hashed and signed."""
        return canonical_json(self.model_dump())


def parse_manifest(data: bytes) -> Manifest:
    """Strict reading of manifest bytes. Raises VerificationError unless they are the canonical form of a manifest."""
    try:
        manifest = Manifest.model_validate(json.loads(data))
        canonical = manifest.encode()
    except (ValidationError, ValueError, RecursionError):
        raise VerificationError("a package's manifest is malformed; ask the sender again") from None
    if canonical != data:
        raise VerificationError("a package's manifest is not in canonical form; ask the sender again")
    if len({part_of(image.guarantee) for image in manifest.images}) != 1:
        raise VerificationError("a package mixes formal images with others, which are judged and sealed apart")
    names = [image.name for image in manifest.images]
    if names != sorted(set(names)):
        raise VerificationError("a package's manifest lists an image twice or out of order")
    return manifest

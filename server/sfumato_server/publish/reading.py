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
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.publish.manifest import (
    MANIFEST,
    SIGNATURE,
    ImageEntry,
    PublishedManifest,
    image_file,
    is_picture,
    parse_published,
)


@dataclass(frozen=True, eq=False)
class PublishedImage:
    """What one image is said to be, its file in the set, and its pixels, uint8 or uint16 [S, S] or [S, S, 3]."""

    entry: ImageEntry
    file: str
    pixels: AnyArray


class PublishedFolder:
    """A published set on disk. `manifest` is the coordinator's statement, `plan` the study's plan in it."""

    def __init__(self, folder: Path, manifest: PublishedManifest, plan: Plan) -> None:
        self.folder, self.manifest, self.plan = folder, manifest, plan

    def entries(self) -> Iterator[ImageEntry]:
        """What every image is said to be, in the order of the manifest."""
        yield from self.manifest.images

    def images(self) -> Iterator[PublishedImage]:
        """Every image in the same order, read as it is asked for. Raises VerificationError where a file is no PNG."""
        return map(self.image, self.entries())

    def statements(self) -> Iterator[str]:
        """Names of all files but the images: what coordinator and sites signed, and what they say of the set."""
        yield from (MANIFEST, SIGNATURE, *(name for name in sorted(self.manifest.files) if not is_picture(name)))

    def image(self, entry: ImageEntry) -> PublishedImage:
        """The picture of one entry. Raises VerificationError when its file is missing or no PNG."""
        file = image_file(entry.site, entry.name)
        try:
            data = (self.folder / file).read_bytes()
        except OSError:
            raise VerificationError(f"{file} is missing or cannot be read") from None
        return PublishedImage(entry, file, decode_png(data))


def open_folder(folder: Path) -> PublishedFolder:
    """The set in `folder`, to be read; nothing is verified but the form of its manifest and plan.

    Raises ConfigError when the folder holds no published set, VerificationError when its manifest is malformed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ConfigError(f"'{folder.name}' is not a published data set: no {MANIFEST}; check the path")
    manifest = parse_published(path.read_bytes())
    try:
        return PublishedFolder(folder, manifest, parse(manifest.plan, Plan, MANIFEST))
    except ConfigError:
        raise VerificationError(f"{MANIFEST} holds no valid plan") from None

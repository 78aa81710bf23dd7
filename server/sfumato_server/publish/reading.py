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
from sfumato_server.publish.manifest import (
    MANIFEST,
    ImageEntry,
    PublishedManifest,
    image_file,
    parse_published,
    provenance_files,
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

    def image(self, entry: ImageEntry) -> PublishedImage:
        """The picture of one entry. Raises VerificationError when its file is missing or no PNG."""
        file = self.file(entry)
        return PublishedImage(entry, file, self.pixels(file))

    def file(self, entry: ImageEntry) -> str:
        """Where the picture of an entry lies in the folder, with `/` between names."""
        return image_file(entry.site, entry.name)

    def pixels(self, file: str) -> AnyArray:
        """The pixels of one file of `file`. Raises VerificationError when it is missing or no PNG."""
        return decode_png(self.read(file))

    def read(self, file: str) -> bytes:
        """The bytes of a file of the set. Raises VerificationError when it is missing."""
        try:
            return (self.folder / file).read_bytes()
        except OSError:
            raise VerificationError(f"{file} is missing or cannot be read") from None

    def certificates(self) -> dict[str, Certificate]:
        """What each site states about its costs, from the manifest that it signed. Raises VerificationError."""
        return {
            site: parse_manifest(self.read(provenance_files(site, parts[0])[0])).certificate
            for site, parts in self.manifest.packages.items()
        }


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

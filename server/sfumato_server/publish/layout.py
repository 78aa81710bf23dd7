"""Where things lie in a published folder (format 4): no folder has more than 1,000 files, up to a million images.

images/SITE/PART/NNNN/NAME.png        1,000 images a folder, numbered through a part
near-duplicates/SITE/PART/NNNN/NAME.png       what is left out as nearly another image, so that anybody can compare
provenance/SITE/key.pem               the site's public key
provenance/SITE/PART/NNNN.json .sig .entries      head, signature and entries of each shard, as the site signed them
shards/SITE/PART/NNNN.json            the coordinator's index of the shard
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from sfumato_common.study.shards import MOST_IMAGES
from sfumato_common.study.words import Part

IMAGES, NEAR = "images", "near-duplicates"
FOLDER_SIZE = 1000
FOLDERS_A_SHARD = MOST_IMAGES // FOLDER_SIZE


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard of a part of a site's release, by their names in the folder; shards count from 1."""

    site: str
    part: Part
    shard: int

    @property
    def head(self) -> str:
        """The site's signed head."""
        return f"{self._own('provenance')}.json"

    @property
    def signature(self) -> str:
        """The site's signature over it."""
        return f"{self._own('provenance')}.sig"

    @property
    def entries(self) -> str:
        """The entries under it."""
        return f"{self._own('provenance')}.entries"

    @property
    def index(self) -> str:
        """The coordinator's index."""
        return f"{self._own('shards')}.json"

    @property
    def all(self) -> tuple[str, str, str, str]:
        """All but the images."""
        return self.head, self.signature, self.entries, self.index

    def image(self, place: int, name: str) -> str:
        """The image at `place` among the shard's entries, counting from 0."""
        return f"{self.folder(place)}/{name}.png"

    def near(self, place: int, name: str) -> str:
        """The image at that place where it is left out as nearly another."""
        return f"{self.folder(place, NEAR)}/{name}.png"

    def folder(self, place: int, room: str = IMAGES) -> str:
        """The folder of the image at that place."""
        number = (self.shard - 1) * FOLDERS_A_SHARD + place // FOLDER_SIZE + 1
        return f"{room}/{self.site}/{self.part}/{number:04d}"

    def published(self, names: Sequence[str], left: Container[str]) -> Iterator[tuple[int, str]]:
        """Place and file of every image but those in `left`; `names` are all that the shard's entries have."""
        for start in range(0, len(names), FOLDER_SIZE):
            folder = self.folder(start)
            for place, name in enumerate(names[start : start + FOLDER_SIZE], start):
                if name not in left:
                    yield place, f"{folder}/{name}.png"

    def folders(self, images: int, room: str = IMAGES) -> list[str]:
        """All folders of a shard of so many images."""
        return [self.folder(place, room) for place in range(0, images, FOLDER_SIZE)]

    def _own(self, room: str) -> str:
        return f"{room}/{self.site}/{self.part}/{self.shard:04d}"


def key_file(site: str) -> str:
    """Where the public key that a site signed with lies."""
    return f"provenance/{site}/key.pem"

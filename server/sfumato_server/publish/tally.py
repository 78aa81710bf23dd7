"""What cards count of a shard's images, in one pass over them: groups, examples, and the lines of the pixels' hash."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sfumato_server.publish.tables import SPLITS, Cover, Placed, Split, level_of

EXAMPLES = 2  # files of each split that cards name


class Group(NamedTuple):
    """Images that are said to be alike in everything but their names."""

    site: str
    label: str
    model: str
    method: str
    guarantee: str
    split: Split


@dataclass(frozen=True)
class Tally:
    """Numbers of images by group, the first files of each split, and a line `SITE/NAME PIXEL_SHA256` for each image."""

    groups: Mapping[Group, int]
    examples: Mapping[Split, Sequence[str]]
    pixels: bytes


def tally_of(site: str, images: Sequence[Placed], cover: Cover | None) -> Tally:
    """The tally of some images of a site, in their order."""
    said = Counter((image.label, image.model, image.method, image.guarantee, split) for _, image, split in images)
    groups: Counter[Group] = Counter()
    for (label, model, method, guarantee, split), number in said.items():
        groups[Group(site, label, model, method, level_of(guarantee, cover), split)] += number
    examples = {split: [one.file for one in images if one.split == split][:EXAMPLES] for split in SPLITS}
    lines = "".join([f"{site}/{image.name} {image.pixel_sha256}\n" for _, image, _ in images])
    return Tally(groups, examples, lines.encode("ascii"))


class Tallies:
    """The tallies of shards added up in the manifest's order; of the lines there is only their hash, `pixels`."""

    def __init__(self) -> None:
        self.groups: Counter[Group] = Counter()
        self.examples: dict[Split, list[str]] = {split: [] for split in SPLITS}
        self.pixels = hashlib.sha256()

    def add(self, one: Tally) -> None:
        """The next shard's."""
        self.groups.update(one.groups)
        self.pixels.update(one.pixels)
        for split, files in one.examples.items():
            self.examples[split] += files[: EXAMPLES - len(self.examples[split])]

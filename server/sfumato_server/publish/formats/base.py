"""What a format of a published set is: one record, from which the command, the documentation and the tests derive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.publish.manifest import ImageEntry, PublishedManifest
from sfumato_server.publish.reading import PublishedImage

LARGEST_FOLDER = 1000  # files


@dataclass(frozen=True)
class About:
    """What a format may say of a whole set: all of it is in the signed manifest, nothing comes from elsewhere.

    `digest` is the sha256 of the manifest that the coordinator signed, `images` how many the set has.
    """

    manifest: PublishedManifest
    plan: Plan
    digest: str
    images: int


@dataclass(frozen=True)
class Shard:
    """Images that are written and read together: the `number`-th of `of` pieces of the manifest's order.

    `start` is the place in the set of the first of `entries`, from 0. Which images a shard has follows from the plan
    and the format alone, so that many processes write the same bytes as one.
    """

    number: int
    of: int
    start: int
    entries: tuple[ImageEntry, ...]


@dataclass(frozen=True)
class Place:
    """Where one image of a converted set is: a file of it, and what to look for in that file ('' where it is all)."""

    file: str
    inside: str = ""


@dataclass(frozen=True)
class Format:
    """One form that a set can have.

    `needs` are packages beside Sfumato's own, imported when the format is used. `per_shard(plan)` is how many images
    are written together, which bounds the memory and the files of a folder. `places` says where each entry's image
    lies, in the order of the entries. `write` puts a shard's files below a folder; `read` gives (name, pixels) back in
    the order of the entries, pixels uint8 or uint16 [S, S] or [S, S, 3], and raises VerificationError where a file
    says anything else of an image than its entry, or holds anything besides.
    """

    name: str
    purpose: str
    needs: tuple[str, ...]
    opened_by: str
    per_shard: Callable[[Plan], int]
    places: Callable[[Shard, About], Sequence[Place]]
    write: Callable[[Path, Shard, Iterable[PublishedImage], About], None]
    read: Callable[[Path, Shard, About], Iterator[tuple[str, AnyArray]]]


def pixel_bytes(plan: Plan) -> int:
    """Size of one image's plain pixels in bytes."""
    form = plan.image
    return form.size * form.size * form.channels * form.bits // 8


def fitting(plan: Plan, bytes_: int, most: int, beside: int = 0) -> int:
    """How many images fit into so many bytes, `beside` bytes each besides their pixels; 1 to `most`."""
    return max(1, min(most, bytes_ // (pixel_bytes(plan) + beside)))

"""The pool: which admitted shards there are, what is left out, and its images as a stream from disk."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from sfumato_common.package import Package
from sfumato_common.package.manifest import ImageFacts, Manifest, ManifestImage
from sfumato_common.package.package import entries_of, reopen_package
from sfumato_common.study.balance import Balance
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.words import GuaranteeLevel
from sfumato_server.pool.duplicates import Duplicate, Duplicates
from sfumato_server.pool.near import Near


@dataclass(frozen=True)
class PoolItem:
    """One image of the pool, with what its site says it is; `pixel_sha256` is over its decoded pixels."""

    site: str
    facts: ImageFacts
    png: bytes
    pixel_sha256: str


class Source(NamedTuple):
    """What images are counted by."""

    site: str
    label: str
    model: str
    method: str
    guarantee: GuaranteeLevel


@dataclass(frozen=True)
class PoolShard:
    """One verified package on disk: its head, what ties it to its site (signature, public key PEM), and its file."""

    head: Manifest
    signature: bytes
    public_key: bytes
    path: Path

    def package(self) -> Package:
        """The package, its entries read anew. Raises VerificationError where the file is another one by now."""
        return reopen_package(self.path, self.head)

    def entries(self) -> list[ManifestImage]:
        """Its entries alone, read anew. Raises VerificationError as `package`."""
        return entries_of(self.path, self.head)


class Left(NamedTuple):
    """What of a shard is not published: of equal pixels, not drawn, nearly another, nearly one that was withdrawn."""

    twice: Mapping[str, Duplicate]
    undrawn: Sequence[str]
    near: Mapping[str, Duplicate]
    withdrawn: Sequence[str]

    @property
    def names(self) -> set[str]:
        """All of them."""
        return {*self.twice, *self.undrawn, *self.near, *self.withdrawn}


class Items:
    """The images of a pool but its duplicates, in the order of sites, parts and names, read from disk each time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __len__(self) -> int:
        return self._pool.counts.total()

    def __iter__(self) -> Iterator[PoolItem]:
        for place, shard in enumerate(self._pool.shards):
            yield from self._pool.items_of(place, shard)


@dataclass(frozen=True)
class Pool:
    """All admitted shards by site, part and number; certificates by site; images by source; what is left out, why.

    `balance` is the plan's public draw, where it has one: what it does not draw is not published. `near` are images, of
    those drawn, that nearly equal another; None where the plan lets them stay.
    """

    shards: tuple[PoolShard, ...]
    certificates: Mapping[str, Certificate]
    counts: Counter[Source]
    duplicates: Duplicates
    balance: Balance | None
    left_out: Mapping[str, str]
    near: Near | None = None

    @property
    def sites(self) -> list[str]:
        """Names of the sites that images came from, sorted."""
        return sorted({shard.head.site for shard in self.shards})

    @property
    def site_keys(self) -> dict[str, bytes]:
        """The public key (PEM) that each site signed with."""
        return {shard.head.site: shard.public_key for shard in self.shards}

    @cached_property
    def items(self) -> Items:
        """Every image that is kept, as a stream that can be begun again."""
        return Items(self)

    def undrawn_of(self, place: int, entries: Sequence[ManifestImage]) -> list[str]:
        """Names of the images of the shard at `place` that the plan's balance does not draw, duplicates aside."""
        if self.balance is None:
            return []
        twice, site = self.duplicates.of(place), self.shards[place].head.site
        alone = (own for own in entries if own.name not in twice)
        return [own.name for own in alone if not self.balance.stays(site, own.name, own.label)]

    def left_of(self, place: int, entries: Sequence[ManifestImage]) -> Left:
        """All images of the shard at `place` that are not published."""
        near, withdrawn = (self.near.kept.of(place), self.near.withdrawn.of(place)) if self.near else ({}, {})
        return Left(self.duplicates.of(place), self.undrawn_of(place, entries), near, list(withdrawn))

    def items_of(self, place: int, shard: PoolShard) -> Iterator[PoolItem]:
        """The images of the shard at `place` that are kept."""
        package = shard.package()
        left = self.left_of(place, package.entries).names
        for entry, png in package.pngs():
            if entry.name not in left:
                yield PoolItem(shard.head.site, entry.facts, png, entry.pixel_sha256)

    def first(self, site: str, most: int) -> dict[Source, list[PoolItem]]:
        """The first `most` images of every source at `site` by their random names; no more is read than they need."""
        wanted = {source: min(most, count) for source, count in self.counts.items() if source.site == site}
        found: dict[Source, list[PoolItem]] = defaultdict(list)
        lacking = sum(wanted.values())
        for place, shard in enumerate(self.shards):
            for item in self.items_of(place, shard) if shard.head.site == site and lacking else ():
                facts = item.facts
                source = Source(site, facts.label, facts.model, facts.method, facts.guarantee)
                if len(found[source]) < most:
                    found[source].append(item)
                    lacking -= 1
                    if not lacking:
                        break
        return found
